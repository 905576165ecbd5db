"""Forks while threads are in the compiled core: `python forks.py KIND CHILDREN`.

Each child routes, looks up and counts, and tells what it drew; prints a JSON list, an entry a
child, null for one that hung.
"""

import faulthandler
import json
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
from routecore import (
    EndpointInfo,
    LeastConnectionsRouter,
    PrefixCacheRouter,
    RandomRouter,
    RequestStatsMonitor,
    RoundRobinRouter,
)
from routecore.kv_events import KVIndex

LIMIT = 90.0  # seconds of a child, by far enough
TOKENS = list(range(1024))

endpoints = [EndpointInfo(url=f"http://{i}") for i in range(64)]
monitor = RequestStatsMonitor(60.0, lease_timeout=10.0)
seeded, unseeded = RandomRouter(seed=7), type.__call__(RandomRouter)
turns, ties = RoundRobinRouter(), LeastConnectionsRouter(seed=7)
cache = PrefixCacheRouter(seed=7)
index = KVIndex(seed=1)
sent = iter(range(1 << 40))


def feed() -> None:
    """Events of one engine."""
    n = next(sent)
    event = ["BlockStored", list(range(n * 64, n * 64 + 64)), None, TOKENS, 16]
    index.core.live("a", 0, [(n, msgspec.msgpack.encode([1.0, [event] * 8, None]))], False)


def batch() -> None:
    """Many choices of one router that the child uses too."""
    keys: list[Any] = [{"prompt": f"{i} " * 50} for i in range(500)]
    cache._core.route_batch(endpoints, {}, monitor.get_request_stats(next(sent) / 100), keys)


def requests() -> None:
    """One request from choice to end, but for one in four."""
    n = next(sent)
    now = n / 100  # the leases of those that never end run out: a process of gigabytes forks slowly
    url = ties.route_request(endpoints, {}, monitor.get_request_stats(now), None)
    monitor.on_new_request(url, str(n), now)
    if n % 4:
        monitor.on_request_complete(url, str(n), now)


KINDS: dict[str, Callable[[], None]] = {
    "idle": lambda: time.sleep(0.1),
    "batch": batch,
    "events": feed,
    "requests": requests,
}


def drawn(router: Any) -> list[int]:
    """What the router chooses, without any load."""
    return [int(router.route_request(endpoints, {}, {}, None)[7:]) for _ in range(24)]


def child() -> dict[str, Any]:
    """What a child sees of everything."""
    in_flight = [monitor.in_flight, sum(monitor.table.core.column("in_flight"))]
    index.matched(TOKENS, ["a"])
    index.counters("a")
    batch()
    requests()
    feed()
    return {
        "in_flight": in_flight,
        "seeded": drawn(seeded),
        "unseeded": drawn(unseeded),
        "turns": drawn(turns),
        "ties": drawn(ties),
    }


def forked() -> int:
    """Fork; the end of a pipe that the child writes to."""
    read, write = os.pipe()
    if os.fork() == 0:
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        os.write(write, json.dumps(child()).encode())
        os._exit(0)
    os.close(write)
    return read


def answer_of(read: int) -> Any:
    """What the child wrote; None if it hung."""
    got = b""
    while select.select([read], [], [], LIMIT + 5)[0]:
        piece = os.read(read, 65536)
        if not piece:
            break
        got += piece
    os.close(read)
    os.wait()
    return json.loads(got) if got else None


def main() -> None:
    """See the module."""
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
    work = KINDS[sys.argv[1]]

    def again() -> None:
        while True:
            work()

    requests()
    for _ in range(2):
        threading.Thread(target=again, daemon=True).start()
    found = []
    for k in range(int(sys.argv[2])):
        time.sleep(0.02 + k % 5 / 400)
        found.append(answer_of(forked()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
