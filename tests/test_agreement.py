"""Every compiled strategy answers as its pure-Python twin, whatever the stats."""

from dataclasses import dataclass
from typing import Any

import reference
from hypothesis import given
from hypothesis import strategies as st

from routecore import (
    ROUTERS,
    EndpointInfo,
    EngineStats,
    RequestStats,
    RequestStatsMonitor,
    SingletonABCMeta,
)
from routecore.monitor import SingletonMeta
from routecore.table import EndpointTable


@dataclass(eq=False)
class Stats:
    num_running_requests: Any = 0
    num_queuing_requests: Any = 0
    gpu_cache_usage_perc: Any = 0.0


NUMBERS = st.one_of(
    st.integers(0, 9), st.floats(0, 4), st.sampled_from([None, float("nan"), float("inf"), -1.0])
)
FLAGS = st.tuples(st.integers(0, 9), st.booleans(), st.booleans())


@st.composite
def fleets(draw: Any) -> tuple[list[EndpointInfo], dict[str, Stats]]:
    flags = draw(st.lists(FLAGS, min_size=1, max_size=12))
    endpoints = [EndpointInfo(url=f"http://e{n}", sleep=s and h, healthy=h or s) for n, s, h in flags]
    endpoints.append(EndpointInfo(url="http://z"))
    stats = {
        e.url: Stats(draw(NUMBERS), draw(NUMBERS), draw(NUMBERS))
        for e in endpoints
        if draw(st.integers(0, 4))
    }
    return endpoints, stats


def fresh(strategy: str, **params: Any) -> Any:
    SingletonABCMeta._instances.clear()
    return ROUTERS[strategy](**params)


@given(fleets(), st.integers(0, 2**64 - 1))
def test_least_connections(fleet: Any, seed: int) -> None:
    endpoints, stats = fleet
    right = reference.least_connections(endpoints, stats, {})
    router = fresh("least_connections", seed=seed)
    told = router.explain(endpoints, stats, {}, None)
    assert router.route_request(endpoints, stats, {}, None) == told.url
    assert told.url in right


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_first_tie_is_the_documented_min(counts: list[int]) -> None:
    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(len(counts))]
    stats = {
        e.url: EngineStats(active_connections=n) for e, n in zip(endpoints, counts, strict=True)
    }
    router = fresh("least_connections", ties="first")
    expected = reference.documented_least_connections(endpoints, stats)
    assert router.route_request(endpoints, stats, {}, None) == expected


@given(fleets(), st.booleans())
def test_weighted_score(fleet: Any, absolute: bool) -> None:
    endpoints, stats = fleet
    weights = {"num_queuing_requests": 2.0, "gpu_cache_usage_perc": 1.5}
    pool = reference.eligible(endpoints)
    scores = reference.weighted_scores(pool, stats, weights, absolute)
    router = fresh(
        "weighted_score", weights=weights, normalise="absolute" if absolute else "min_max", seed=1
    )
    told = router.explain(endpoints, stats, {}, None)
    assert router.route_request(endpoints, stats, {}, None) == told.url
    if scores is None:
        assert told.url in reference.least_connections(endpoints, stats, {})
        return
    best = max(scores)
    near = {e.url for e, s in zip(pool, scores, strict=True) if s >= best - 1e-6}
    assert told.url in near
    ours = [c.score for c in told.candidates if c.eligible]
    assert all(abs(a - b) < 1e-9 for a, b in zip(ours, scores, strict=True))
    for candidate in told.candidates:
        if candidate.eligible:
            assert abs(candidate.score - sum(t.value for t in candidate.terms)) < 1e-9


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=30))
def test_round_robin(lists: list[list[int]]) -> None:
    router, twin = fresh("round_robin"), reference.RoundRobin()
    for numbers in lists:
        endpoints = [EndpointInfo(url=f"http://e{n}") for n in numbers]
        assert router.route_request(endpoints, {}, {}, None) == twin.pick(endpoints)


@given(fleets(), st.integers(0, 2**64 - 1), st.text(max_size=40))
def test_every_strategy_stays_within_the_eligible_and_is_repeatable(
    fleet: Any, seed: int, prompt: str
) -> None:
    endpoints, stats = fleet
    allowed = {e.url for e in reference.eligible(endpoints)}
    body = {"model": "m", "prompt": prompt, "x-session-id": prompt}
    for strategy in ROUTERS:
        runs = []
        for _ in range(2):
            router = fresh(strategy, seed=seed)
            told = router.explain(endpoints, stats, {}, None, body).url
            urls = [router.route_request(endpoints, stats, {}, None, body) for _ in range(3)]
            assert urls[0] == told
            runs.append(urls)
        assert runs[0] == runs[1]
        assert set(runs[0]) <= allowed


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.integers(0, 99))
def test_resident_and_plain_path_answer_alike(counts: list[int], seed: int) -> None:
    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(len(counts))]
    SingletonMeta._instances.clear()
    monitor = RequestStatsMonitor(60.0, table=EndpointTable())
    for endpoint, count in zip(endpoints, counts, strict=True):
        for i in range(count):
            monitor.on_new_request(endpoint.url, f"{endpoint.url}-{i}", 1.0)
    view = monitor.get_request_stats(1.0)
    plain = {url: view[url] for url in view}
    assert all(isinstance(s, RequestStats) for s in plain.values())
    for strategy in ("least_connections", "power_of_two", "random"):
        told = [fresh(strategy, seed=seed).explain(endpoints, {}, s, None) for s in (view, plain)]
        assert told[0] == told[1]
