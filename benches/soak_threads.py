"""Sixteen threads on one router while endpoints come and go and have finalizers.

`python benches/soak_threads.py [SECONDS]` collects garbage at every allocation, routes, batches,
explains, takes snapshots and removes rows, and fails if any thread stands still for a minute or a
count is not exact at the end.
"""

import faulthandler
import gc
import random
import sys
import threading
import time
import weakref
from collections import Counter
from typing import Any

from routecore import (
    EndpointInfo,
    EndpointTable,
    LeastConnectionsRouter,
    PrefixCacheRouter,
    RequestStatsMonitor,
    RoundRobinRouter,
)

THREADS = 16
URLS = 200
STILL = 60.0

table = EndpointTable()
monitor = RequestStatsMonitor(60.0, table=table, lease_timeout=1e6)
routers: list[Any] = [LeastConnectionsRouter(seed=1), PrefixCacheRouter(seed=1)]
turns = RoundRobinRouter()
fixed = [EndpointInfo(url=f"turn-{i}") for i in range(5)]
stop = threading.Event()
freed = Counter[str]()


class Endpoint:
    """Of a host: its URL is a property, and it is in a cycle."""

    def __init__(self, name: str) -> None:
        self.name, self.me = name, self

    @property
    def url(self) -> str:
        return self.name


def gone() -> None:
    """What a host's finalizer may do."""
    freed["endpoints"] += 1
    turns.route_request(fixed, {}, {}, None)


class Worker(threading.Thread):
    """Sends requests to their end, one after the other."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.number, self.moved = number, time.monotonic()
        self.done = Counter[str]()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            draw = random.Random(self.number)
            while not stop.is_set():
                self.round(draw)
                self.moved = time.monotonic()
        except BaseException as error:
            self.error = error

    def round(self, draw: random.Random) -> None:
        made = [Endpoint(f"http://{draw.randrange(URLS)}") for _ in range(draw.randrange(1, 5))]
        for endpoint in made:
            weakref.finalize(endpoint, gone).atexit = False
        router = draw.choice(routers)
        body = {"prompt": f"{draw.randrange(40)} " * 100}
        form = draw.choice([list, tuple])
        endpoints: Any = form(made)
        for k in range(2):
            stats: Any = monitor.get_request_stats(1.0)
            url = router.route_request(endpoints, {}, stats, None, body)
            name = f"{self.number}-{self.done['requests']}"
            self.done["requests"] += 1
            monitor.on_new_request(url, name, 1.0)
            if k:
                router.explain(endpoints, {}, stats, None, body)
                dict(monitor.get_request_stats(1.0))
            monitor.on_request_response(url, name, 1.0)
            monitor.on_request_complete(url, name, 1.0)
        self.done["turns"] += 1
        turns.route_request(fixed, {}, {}, None)
        kind = draw.randrange(20)
        if kind == 0:
            self.done["batches"] += 1
            router._core.route_batch(endpoints, {}, {}, [body] * 20)
        elif kind == 1:
            extra = f"http://extra-{draw.randrange(URLS)}"
            table.add(extra)
            table.remove(extra)


def main() -> int:
    """See the module."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    sys.setswitchinterval(1e-5)
    gc.set_threshold(1)
    workers = [Worker(n) for n in range(THREADS)]
    end = time.monotonic() + seconds
    for worker in workers:
        worker.start()
    while time.monotonic() < end:
        faulthandler.dump_traceback_later(STILL + 30, exit=True)
        stop.wait(5.0)
        now = time.monotonic()
        still = [w.number for w in workers if now - w.moved > STILL]
        if still or any(w.error for w in workers):
            print("stands still or failed:", still, [w.error for w in workers if w.error])
            faulthandler.dump_traceback(all_threads=True)
            return 1
    stop.set()
    for worker in workers:
        worker.join(STILL)
    faulthandler.cancel_dump_traceback_later()
    gc.set_threshold(700)
    done = sum((w.done for w in workers), Counter[str]())
    alive = sum(w.is_alive() for w in workers)
    monitor.get_request_stats(10.0)  # choices that were never reported have run out
    counts = {name: float(table.column(name).sum()) for name in ("in_flight", "queued_tokens")}
    print(dict(done), dict(freed), counts, "in flight", monitor.in_flight, "alive", alive)
    exact = monitor.in_flight == monitor.leases_expired == 0 and not any(counts.values())
    return 0 if exact and not alive else 1


if __name__ == "__main__":
    sys.exit(main())
