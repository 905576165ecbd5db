"""One decision: each strategy, resident and plain, beside its pure-Python twin."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference as twin
import reference_cost
from fleets import SIZES, endpoints_of, engine_stats_of, resident_stats_of
from pytest_benchmark.fixture import BenchmarkFixture
from reference_cache import NaiveFleet, prompt_of, question
from routecore import ROUTERS, EngineStats, LeastConnectionsRouter, RequestStats

WEIGHTS = {
    "num_queuing_requests": 2.0,
    "gpu_cache_usage_perc": 2.0,
    "in_flight": 1.0,
    "gpu_prefix_cache_hit_rate": 1.0,
}
RESIDENT_WEIGHTS = {
    "in_flight": 2.0,
    "qps": 1.0,
    "in_prefill_requests": 1.0,
    "in_decoding_requests": 1.0,
}
BODY = {"model": "m", "prompt": "The quick brown fox. " * 50, "x-session-id": "42"}
SESSION = twin.session_key("42")


@dataclass
class Connections:
    """A host's own stats: mutable, so read at every decision."""

    active_connections: float


def cache_twin(name: str) -> Callable[..., str]:
    """A cache-aware strategy over a naive index that holds the prompt on every fourth endpoint."""
    fleet = NaiveFleet(400_000, 600)
    engine = ([3.5, 0.05, 1.6e-6, 3.5], [13.7, 0.026, 4.2e-5], 256.0, [0.0, 0.0], 0.0, 0.0)

    def route(endpoints: Any, engines: Any, _: Any) -> str:
        urls = twin.eligible(endpoints)
        prompt = prompt_of(BODY, 128, 16)
        if not fleet.index.held:
            for url in urls[::4]:
                fleet.chosen(url, prompt, lambda *_: 1.0)
        slower = dict.fromkeys(urls, (1.0, 1.0, 0.0, 0.0))
        asked = question(fleet, urls, prompt, engine=engine, slower=slower, stats=engines)
        return reference_cost.least(reference_cost.COSTS[name](asked))[0]

    return route


def twins(name: str, weights: dict[str, float]) -> Callable[..., str]:
    """The strategy as one would first write it."""
    rng, turns = random.Random(7), twin.RoundRobin()
    table: dict[str, Callable[..., str]] = {
        "round_robin": lambda e, _s, _r: turns.route(e),
        "random": lambda e, _s, _r: rng.choice(twin.eligible(e)),
        "least_connections": twin.least_connections,
        "power_of_two": lambda e, s, r: twin.power_of_two(e, s, r, rng),
        "weighted_score": lambda e, s, r: twin.best(twin.weighted_scores(e, s, r, weights) or {})[
            0
        ],
        "session_affinity": lambda e, s, r: twin.homes(SESSION, twin.loads(e, s, r), None),
        **{key: cache_twin(key) for key in reference_cost.COSTS},
        "prefix_affinity": lambda e, s, r: twin.homes(
            hash(BODY["prompt"][:128]) & twin.MASK, twin.loads(e, s, r), 1.25
        ),
    }
    if name in table:
        return table[name]
    may = twin.TWINS[name].may
    return lambda e, s, r: may(e, s, r, None)[0]


def stats_of(path: str, endpoints: Any) -> tuple[Any, Any]:
    """Engine and request stats of a path: resident columns, or objects in dicts."""
    if path == "resident":
        return {}, resident_stats_of(endpoints)
    return engine_stats_of(endpoints), {}


@pytest.mark.parametrize("who", ["core", "twin"])
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("path", ["resident", "plain"])
@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_route(benchmark: BenchmarkFixture, name: str, path: str, count: int, who: str) -> None:
    benchmark.group = f"{name}, {path}, {count} endpoints"
    endpoints = endpoints_of(count)
    engine, seen = stats_of(path, endpoints)
    weights = RESIDENT_WEIGHTS if path == "resident" else WEIGHTS
    if who == "twin":
        # The twin reads what a host would hand it: plain dicts on either path.
        benchmark(twins(name, weights), endpoints, engine, dict(seen))
        return
    params: dict[str, Any] = {"weights": weights} if name == "weighted_score" else {}
    made: Any = ROUTERS[name]
    router = made(seed=7, **params)
    benchmark(router.route_request, endpoints, engine, seen, None, BODY)


def documented_min(endpoints: Any, stats: Any) -> str:
    """The example of the documented interface."""
    url: str = min(endpoints, key=lambda e: stats[e.url].active_connections).url
    return url


# One decision alone costs no more than the harness's own call.
HUNDRED = range(100)


@pytest.mark.parametrize("who", ["core, list", "core, tuple", "documented min()", "numpy argmin"])
@pytest.mark.parametrize("count", [64, 1024, 10_000])
def test_least_connections(benchmark: BenchmarkFixture, count: int, who: str) -> None:
    benchmark.group = f"least_connections, 100 decisions, our monitor, {count} endpoints"
    endpoints = endpoints_of(count)
    if who.startswith("core"):
        stats = resident_stats_of(endpoints)
        given: Any = tuple(endpoints) if who == "core, tuple" else endpoints
        route, none = LeastConnectionsRouter(seed=7).route_request, dict[str, EngineStats]()
        benchmark(lambda: [route(given, none, stats, None) for _ in HUNDRED])
    elif who == "numpy argmin":
        column = np.arange(count, 0, -1, dtype=np.float64)
        benchmark(lambda: [np.argmin(column) for _ in HUNDRED])
    else:
        engine = engine_stats_of(endpoints)
        benchmark(lambda: [documented_min(endpoints, engine) for _ in HUNDRED])


@pytest.mark.parametrize("who", ["core, Structs", "core, dataclasses", "documented min()"])
@pytest.mark.parametrize("count", SIZES)
def test_plain_path(benchmark: BenchmarkFixture, count: int, who: str) -> None:
    benchmark.group = f"least_connections, 100 decisions, your own dicts, {count} endpoints"
    endpoints = endpoints_of(count)
    stats: dict[str, Any] = dict(engine_stats_of(endpoints))
    if who == "core, dataclasses":
        stats = {url: Connections(s.active_connections) for url, s in stats.items()}
    if who == "documented min()":
        benchmark(lambda: [documented_min(endpoints, stats) for _ in HUNDRED])
    else:
        route, none = LeastConnectionsRouter(seed=7).route_request, dict[str, RequestStats]()
        benchmark(lambda: [route(endpoints, stats, none, None) for _ in HUNDRED])
