"""What failing engines cost with every strategy that goes by load: a Markdown table.

A script: `python benches/failing.py`. Four simulated engines in plain Python, 40 requests a second
on a clock of its own, so that the figures are the same wherever it runs: a first token takes 200 ms
and an answer 400, ten times that on a slow engine; who refuses or answers 500 does so after 2 ms.
The last lines are of 1,000 endpoints and eight real threads.
"""

import heapq
import itertools
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    HealthPolicy,
    RequestStatsMonitor,
    new_instance,
)

STRATEGIES = (
    *("round_robin", "least_connections", "power_of_two", "prefix_cache"),
    *("expected_latency", "lmetric", "dynamo_cost"),
)
ILL = 1  # the engine that fails
RATE = 40.0
HEADS = [f"system prompt number {n} " * 60 for n in range(16)]
State = Callable[[float, int], str]
"""Seconds since the start, engine → well, slow, refused, status (an error reported as the status of
a complete answer) or failed (as a failure without a reason)."""


class Run:
    """So many seconds of one strategy; `left` is the share of clients that leave mid-stream."""

    def __init__(
        self, strategy: str, state: State, seconds: float, seed: int, left: float = 0.0
    ) -> None:
        table = EndpointTable()
        health = HealthPolicy(seed=seed)
        self.monitor = new_instance(RequestStatsMonitor, 60.0, table=table, health=health)
        router = new_instance(ROUTERS[strategy], seed=seed)
        urls = [f"http://engine-{n}:8000" for n in range(4)]
        endpoints = tuple(EndpointInfo(url=url) for url in urls)
        draw = random.Random(seed)
        self.events: list[tuple[float, int, str, str, str]] = []
        self._order = itertools.count()
        self.sent: list[
            tuple[float, int, float | None]
        ] = []  # when, where, seconds or None: failed
        start = 1.7e9
        for n in range(int(seconds * RATE)):
            now = n / RATE
            self._drain(start + now)
            body = {"prompt": draw.choice(HEADS) + f"question {draw.random()} " * 20}
            stats = self.monitor.get_request_stats(start + now)
            url = router.route_request(endpoints, {}, stats, None, body)
            engine, key = urls.index(url), str(n)
            self.monitor.on_new_request(url, key, start + now)
            how = state(now, engine)
            slow = 10.0 if how == "slow" else 1.0
            ok = how in ("well", "slow")
            self.sent.append((now, engine, 0.2 * slow if ok else None))
            if not ok:
                self._at(start + now + 0.002, how, url, key)
                continue
            self._at(start + now + 0.2 * slow, "token", url, key)
            leaves = draw.random() < left
            end = 0.3 if leaves else 0.4
            self._at(start + now + end * slow, "left" if leaves else "done", url, key)

    def _at(self, time: float, what: str, url: str, key: str) -> None:
        heapq.heappush(self.events, (time, next(self._order), what, url, key))

    def _drain(self, now: float) -> None:
        while self.events and self.events[0][0] <= now:
            time, _, what, url, key = heapq.heappop(self.events)
            if what == "token":
                self.monitor.on_request_response(url, key, time)
            elif what == "done":
                self.monitor.on_usage(url, key, 500, None, 8)
                self.monitor.on_request_complete(url, key, time)
            elif what == "status":
                self.monitor.on_request_complete(url, key, time, 500)
            else:
                reason = {"refused": "connect", "left": "client"}.get(what, "unknown")
                self.monitor.on_request_failed(url, key, time, reason)

    def failed(self, start: float = 0.0, end: float = 1e9) -> int:
        """Requests of that time that failed."""
        return sum(took is None for at, _, took in self.sent if start <= at < end)

    def share(self, start: float, end: float) -> float:
        """The ill engine's, of the requests of that time."""
        found = [engine for at, engine, _ in self.sent if start <= at < end]
        return found.count(ILL) / len(found)


def ill(how: str, start: float, end: float) -> State:
    """One engine is so for a while."""
    return lambda now, engine: how if engine == ILL and start <= now < end else "well"


def flaps(now: float, engine: int) -> str:
    """A second well, a second dead."""
    return "refused" if engine == ILL and int(now) % 2 else "well"


def all_die(now: float, _engine: int) -> str:
    """All are dead from 10 to 20 s."""
    return "refused" if 10 <= now < 20 else "well"


def first_after(run: Run, when: float) -> float:
    """Seconds from then until a request that is served was sent."""
    return next(at for at, _, took in run.sent if at >= when and took is not None) - when


def figures(strategy: str, seed: int = 1) -> dict[str, str]:
    """One row."""
    failed = Run(strategy, ill("failed", 10, 16), 46, seed)
    status = Run(strategy, ill("status", 10, 16), 46, seed)
    dead = Run(strategy, ill("refused", 10, 18), 18, seed)
    slow = Run(strategy, ill("slow", 10, 40), 40, seed)
    flap = Run(strategy, flaps, 30, seed)
    gone = Run(strategy, all_die, 40, seed)
    half = Run(strategy, ill("well", 0, 0), 30, seed, left=0.5)
    shares = Counter(engine for _, engine, _ in half.sent)
    most = max(shares.values()) / len(half.sent)
    return {
        "failed, reported as failed": str(failed.failed()),
        "share after": f"{failed.share(26, 46):.2f}",
        "failed, reported as status": str(status.failed()),
        "share then": f"{status.share(26, 46):.2f}",
        "dead 8 s: failed": str(dead.failed()),
        "10x slower: share in 10 to 20 s": f"{slow.share(20, 30):.2f}",
        "flaps: failed": f"{flap.failed() / len(flap.sent):.1%}",
        "all die: first answer after": f"{first_after(gone, 20):.2f} s",
        "failed after": str(gone.failed(22)),
        "half leave: out, largest share": f"{half.monitor.ejections}, {most:.2f}",
    }


def threads(endpoints: int = 1000, dead: int = 100, each: int = 2500) -> str:
    """Least connections from eight threads; the first endpoints refuse connections."""
    table = EndpointTable()
    monitor = new_instance(RequestStatsMonitor, 60.0, table=table)
    router = new_instance(ROUTERS["least_connections"])
    infos = tuple(EndpointInfo(url=f"http://engine-{n}:8000") for n in range(endpoints))
    refuses = {info.url for info in infos[:dead]}
    sent: list[Counter[str]] = [Counter() for _ in range(8)]

    ticks, lock = itertools.count(), threading.Lock()

    def work(thread: int) -> None:
        for n in range(each):
            with lock:
                now = 1.7e9 + next(ticks) / 800.0
            url = router.route_request(infos, {}, monitor.get_request_stats(now), None, {})
            sent[thread][url] += 1
            key = f"{thread}-{n}"
            monitor.on_new_request(url, key, now)
            if url in refuses:
                monitor.on_request_failed(url, key, now, "connect")
            else:
                monitor.on_request_complete(url, key, now)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = sum(sent, Counter())
    tries = np.array([total[url] for url in refuses])
    return (
        f"{endpoints} endpoints, {dead} dead, 8 threads, {8 * each} requests in 25 s: a dead one "
        f"got {tries.mean():.1f} on average and {tries.max()} at most, a live one "
        f"{(8 * each - tries.sum()) / (endpoints - dead):.1f}; "
        f"{monitor.in_flight} in flight at the end, {monitor.endpoints_out} out."
    )


def main() -> None:
    """Prints."""
    logging.getLogger("routecore.health").setLevel(logging.ERROR)
    rows: dict[str, dict[str, Any]] = {name: figures(name) for name in STRATEGIES}
    print(f"| one of four | {' | '.join(f'`{name}`' for name in rows)} |")
    print("|---" * (len(rows) + 1) + "|")
    for what in next(iter(rows.values())):
        print(f"| {what} | {' | '.join(row[what] for row in rows.values())} |")
    print(f"\n{threads()}")


if __name__ == "__main__":
    main()
