"""Decisions as a router makes them: one every few milliseconds, other work in between.

`test_route.py` calls in a loop, with code and data in the CPU's caches. A router that gets 100
requests a second does other things meanwhile: here, JSON that is parsed and written, and memory
that is read over (`--memory 64` leaves nothing in most last-level caches). Each contender is called
warm (in a loop) and cold (alternating, one call after each piece of other work). On a busy machine
cold figures measure its neighbours: read the best tenth, on a quiet one.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from routecore import EngineStats, ExpectedLatencyRouter, LeastConnectionsRouter

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from fleets import endpoints_of, engine_stats_of, resident_stats_of
from test_route import BODY, documented_min


def contenders(count: int) -> dict[str, Callable[[], Any]]:
    """What chooses, by name: with our monitor, and the documented `min()` over a dict."""
    endpoints = endpoints_of(count)
    stats, engine = resident_stats_of(endpoints), engine_stats_of(endpoints)
    given, none = tuple(endpoints), dict[str, EngineStats]()
    load = LeastConnectionsRouter(seed=7).route_request
    latency = ExpectedLatencyRouter(seed=7).route_request
    return {
        "least_connections, our monitor": lambda: load(given, none, stats, None),
        "documented min()": lambda: documented_min(endpoints, engine),
        "expected_latency, our monitor, 1,000 characters": lambda: latency(
            given, none, stats, None, BODY
        ),
    }


def warm(call: Callable[[], Any]) -> float:
    """Microseconds of a call in a loop."""
    rounds = []
    for _ in range(30):
        begun = time.perf_counter_ns()
        for _ in range(200):
            call()
        rounds.append((time.perf_counter_ns() - begun) / 200e3)
    return statistics.median(rounds)


def cold(
    calls: dict[str, Callable[[], Any]], rounds: int, pause_s: float, memory_mb: int
) -> dict[str, list[float]]:
    """Microseconds of a call after other work, by name: the best tenth, and the median."""
    memory = np.zeros(memory_mb << 17)
    document = json.dumps([{"id": at, "text": "other work " * 20} for at in range(300)])
    took: dict[str, list[int]] = {name: [] for name in calls}
    for turn in range(rounds * len(calls)):
        name = list(calls)[turn % len(calls)]
        due = time.perf_counter() + pause_s
        memory += 1.0
        while time.perf_counter() < due:
            json.dumps(json.loads(document))
        call = calls[name]
        begun = time.perf_counter_ns()
        call()
        took[name].append(time.perf_counter_ns() - begun)
    return {name: list(np.quantile(times, (0.1, 0.5)) / 1e3) for name, times in took.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=300, help="cold calls of each")
    parser.add_argument("--pause", type=float, default=10.0, help="milliseconds between two calls")
    parser.add_argument("--memory", type=int, default=2, help="MB read over between two calls")
    args = parser.parse_args()
    calls = contenders(args.endpoints)
    hot = {name: warm(call) for name, call in calls.items()}
    alone = cold(calls, args.rounds, args.pause / 1e3, args.memory)
    title = f"{args.endpoints} endpoints, µs a decision"
    print(f"{title:50}{'warm':>8}{'cold p10':>10}{'median':>8}")
    for name in calls:
        low, middle = alone[name]
        print(f"{name:50}{hot[name]:8.2f}{low:10.2f}{middle:8.2f}")


if __name__ == "__main__":
    main()
