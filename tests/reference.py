"""The obvious pure-Python version of each strategy and of the stats monitor.

Oracle of the tests and baseline of the benches. Plain dicts in, the set of right answers out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

HIGHER_IS_BETTER = {"gpu_prefix_cache_hit_rate"}
SHARES = {"gpu_cache_usage_perc", "gpu_prefix_cache_hit_rate"}


def known(value: Any) -> float | None:
    """A finite number ≥ 0, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def eligible(endpoints: Sequence[Any]) -> list[Any]:
    seen: set[str] = set()
    first = [e for e in endpoints if not (e.url in seen or seen.add(e.url))]
    return [e for e in first if getattr(e, "healthy", True) and not getattr(e, "sleep", False)]


def fill(values: list[float | None]) -> list[float]:
    """Unknown values take the lower median of the known ones; none known: 0."""
    have = sorted(v for v in values if v is not None)
    neutral = have[(len(have) - 1) // 2] if have else 0.0
    return [neutral if v is None else v for v in values]


def loads(endpoints: Sequence[Any], engine: Mapping[str, Any], requests: Any) -> list[float]:
    """Requests on each endpoint, by the documented stats."""

    def of_engine(stats: Any) -> float | None:
        if hasattr(stats, "active_connections"):
            return known(stats.active_connections)
        running, queuing = known(stats.num_running_requests), known(stats.num_queuing_requests)
        return None if running is None or queuing is None else running + queuing

    if engine:
        urls = (e.url for e in endpoints)
        return fill([of_engine(engine[u]) if u in engine else None for u in urls])
    found = (requests.get(e.url) if requests else None for e in endpoints)
    return [0.0 if s is None else s.in_prefill_requests + s.in_decoding_requests for s in found]


def least_connections(endpoints: Sequence[Any], engine: Any, requests: Any) -> set[str]:
    """URLs with the fewest requests."""
    costs = loads(endpoints, engine, requests)
    pool = [(c, e.url) for c, e in zip(costs, endpoints, strict=True) if e in eligible(endpoints)]
    least = min(c for c, _ in pool)
    return {url for cost, url in pool if cost == least}


def documented_least_connections(endpoints: Sequence[Any], engine: Any) -> str:
    """The example of the documented interface."""
    return min(endpoints, key=lambda e: engine[e.url].active_connections).url


def weighted_scores(
    endpoints: Sequence[Any], engine: Mapping[str, Any], weights: Mapping[str, float], absolute: bool
) -> list[float] | None:
    """The score of each endpoint; None when nothing is known."""
    scores = [0.0] * len(endpoints)
    anything = False
    for stat, weight in weights.items():
        raw = [known(getattr(engine.get(e.url), stat, None)) for e in endpoints]
        if all(v is None for v in raw):
            continue
        anything = True
        values = fill(raw)
        scale = _absolute(stat) if absolute else _min_max(stat, values)
        scores = [s + weight * scale(v) for s, v in zip(scores, values, strict=True)]
    return scores if anything else None


def _absolute(stat: str) -> Callable[[float], float]:
    if stat in HIGHER_IS_BETTER:
        return lambda x: min(1.0, x)
    if stat in SHARES:
        return lambda x: 1 - min(1.0, x)
    return lambda x: 1 / (1 + x)


def _min_max(stat: str, values: list[float]) -> Callable[[float], float]:
    low, high = min(values), max(values)
    if high == low:
        return lambda x: 1.0
    if stat in HIGHER_IS_BETTER:
        return lambda x: (x - low) / (high - low)
    return lambda x: (high - x) / (high - low)


class RoundRobin:
    """Sorted by URL, one counter per set."""

    def __init__(self) -> None:
        self.turns: dict[frozenset[str], int] = {}

    def pick(self, endpoints: Sequence[Any]) -> str:
        urls = sorted(e.url for e in eligible(endpoints))
        turn = self.turns.get(frozenset(urls), 0)
        self.turns[frozenset(urls)] = turn + 1
        return urls[turn % len(urls)]


class Window:
    """A sliding window that is summed anew on every read."""

    def __init__(self, span: float) -> None:
        self.span = span
        self.events: deque[tuple[float, float]] = deque()

    def push(self, time: float, value: float) -> None:
        self.events.append((time, value))
        self.trim(time)

    def trim(self, now: float) -> None:
        while self.events and self.events[0][0] < now - self.span:
            self.events.popleft()

    def mean(self) -> float:
        return sum(v for _, v in self.events) / len(self.events) if self.events else -1.0


class NaiveMonitor:
    """Per-URL windows, all of them read and summed for each snapshot."""

    def __init__(self, span: float) -> None:
        self.span = span
        self.start: dict[tuple[str, str], float] = {}
        self.rows: dict[str, dict[str, Any]] = {}

    def on_new_request(self, url: str, request_id: str, time: float) -> None:
        new = {"qps": Window(self.span), "ttft": Window(self.span), "latency": Window(self.span)}
        row = self.rows.setdefault(
            url, {**new, "prefill": 0, "decode": 0, "finished": 0, "first": time}
        )
        self.start[url, request_id] = time
        row["prefill"] += 1
        row["qps"].push(time, 1.0)

    def on_request_response(self, url: str, request_id: str, time: float) -> None:
        row = self.rows[url]
        row["prefill"] -= 1
        row["decode"] += 1
        row["ttft"].push(time, time - self.start[url, request_id])

    def on_request_complete(self, url: str, request_id: str, time: float) -> None:
        row = self.rows[url]
        row["decode"] -= 1
        row["finished"] += 1
        row["latency"].push(time, time - self.start.pop((url, request_id)))

    def get_request_stats(self, now: float) -> dict[str, dict[str, float]]:
        result = {}
        for url, row in self.rows.items():
            for name in ("qps", "ttft", "latency"):
                row[name].trim(now)
            result[url] = {
                "qps": sum(v for _, v in row["qps"].events) / self.span,
                "ttft": row["ttft"].mean(),
                "avg_latency": row["latency"].mean(),
                "in_prefill_requests": row["prefill"],
                "in_decoding_requests": row["decode"],
                "finished_requests": row["finished"],
                "uptime": now - row["first"],
            }
        return result
