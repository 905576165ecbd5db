"""The naive twin of the monitor: deques, summed anew at every call."""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Seen:
    """All that is remembered of one endpoint."""

    arrivals: deque[float] = field(default_factory=deque)
    ttfts: deque[tuple[float, float]] = field(default_factory=deque)
    latencies: deque[tuple[float, float]] = field(default_factory=deque)
    prefill: int = 0
    decoding: int = 0
    finished: int = 0
    first: float = 0.0


@dataclass
class Figures:
    """What the monitor says of one endpoint; -1 is "not known"."""

    qps: float
    ttft: float
    in_prefill_requests: int
    in_decoding_requests: int
    finished_requests: int
    uptime: float
    avg_latency: float


def mean(events: deque[tuple[float, float]]) -> float:
    """Mean of the values, -1 for none."""
    return sum(value for _, value in events) / len(events) if events else -1


class NaiveMonitor:
    """The request lifecycle over dicts; snapshots cost a pass over the window."""

    def __init__(self, window: float) -> None:
        self.window = window
        self.seen: dict[str, Seen] = {}
        self.open: dict[tuple[str, str], list[tuple[float, float | None]]] = {}

    def on_new_request(self, url: str, request: str, now: float) -> None:
        """Sent; waiting attempts under the same id elsewhere have failed."""
        for (other, name), flights in list(self.open.items()):
            if name == request and other != url:
                waiting = [f for f in flights if f[1] is None]
                self.seen[other].prefill -= len(waiting)
                for flight in waiting:
                    flights.remove(flight)
        seen = self.seen.setdefault(url, Seen(first=now))
        seen.prefill += 1
        seen.arrivals.append(now)
        self.open.setdefault((url, request), []).append((now, None))

    def on_request_response(self, url: str, request: str, now: float) -> None:
        """First token."""
        flights = self.open.get((url, request), [])
        for at, (start, first) in enumerate(flights):
            if first is None:
                flights[at] = (start, now)
                seen = self.seen[url]
                seen.prefill -= 1
                seen.decoding += 1
                seen.ttfts.append((now, now - start))
                return

    def on_request_complete(self, url: str, request: str, now: float) -> None:
        """Served to its end."""
        self._end(url, request, now, done=True)

    def on_request_failed(self, url: str, request: str, now: float) -> None:
        """Failed: leaves the load, is no latency."""
        self._end(url, request, now, done=False)

    def _end(self, url: str, request: str, now: float, *, done: bool) -> None:
        flights = self.open.get((url, request), [])
        if not flights:
            return
        flight = next((f for f in flights if f[1] is not None), flights[0])
        flights.remove(flight)
        seen = self.seen[url]
        if flight[1] is None:
            seen.prefill -= 1
        else:
            seen.decoding -= 1
        if done:
            seen.finished += 1
            seen.latencies.append((now, now - flight[0]))

    def get_request_stats(self, now: float) -> dict[str, Figures]:
        """Everything of everybody."""
        figures = {}
        for url, seen in self.seen.items():
            edge = now - self.window
            while seen.arrivals and seen.arrivals[0] < edge:
                seen.arrivals.popleft()
            for events in (seen.ttfts, seen.latencies):
                while events and events[0][0] < edge:
                    events.popleft()
            figures[url] = Figures(
                qps=len(seen.arrivals) / self.window,
                ttft=mean(seen.ttfts),
                in_prefill_requests=seen.prefill,
                in_decoding_requests=seen.decoding,
                finished_requests=seen.finished,
                uptime=now - seen.first,
                avg_latency=mean(seen.latencies),
            )
        return figures
