"""Fallbacks are what the strategy would choose without the endpoints before them."""

import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    LeastConnectionsRouter,
    PrefixCacheRouter,
    RequestStatsMonitor,
    RoundRobinRouter,
)
from routecore.endpoints.health import HealthPolicy
from routecore.singleton import new_instance

URLS = [f"http://e{n}:8000" for n in range(5)]
ENDPOINTS = tuple(EndpointInfo(url=url) for url in URLS)
BODY = {"model": "m", "prompt": "once upon a time " * 200}


def monitor(**health: float) -> RequestStatsMonitor:
    policy = HealthPolicy(seed=1, **health)  # type: ignore[arg-type]
    return new_instance(RequestStatsMonitor, 60.0, table=EndpointTable(), health=policy)


@pytest.mark.parametrize("strategy", ROUTERS)
def test_each_strategy_names_others_and_counts_the_first_alone(strategy: str) -> None:
    router, counts = new_instance(ROUTERS[strategy], seed=3), monitor()
    for at in range(20):
        stats = counts.get_request_stats(float(at))
        named = router.route_ranked(ENDPOINTS, {}, stats, None, BODY, fallbacks=2)
        assert len(set(named)) == 3
        assert set(named) <= set(URLS)
        counts.on_new_request(named[0], str(at), float(at))
    assert counts.in_flight == 20


@pytest.mark.parametrize("strategy", ROUTERS)
def test_the_first_is_what_route_request_gives(strategy: str) -> None:
    one, two = new_instance(ROUTERS[strategy], seed=3), new_instance(ROUTERS[strategy], seed=3)
    here, there = monitor(), monitor()
    for at in range(30):
        stats = here.get_request_stats(float(at)), there.get_request_stats(float(at))
        named = one.route_ranked(ENDPOINTS, {}, stats[0], None, BODY, fallbacks=3)
        url = two.route_request(ENDPOINTS, {}, stats[1], None, BODY)
        assert named[0] == url
        here.on_new_request(url, str(at), float(at))
        there.on_new_request(url, str(at), float(at))


def test_they_are_in_order_of_load() -> None:
    router, counts = new_instance(LeastConnectionsRouter, seed=1), monitor()
    for at, load in enumerate((2, 0, 4, 1, 3)):
        for n in range(load):
            counts.on_new_request(URLS[at], f"{at}-{n}", 0.0)
    stats = counts.get_request_stats(0.0)
    named = router.route_ranked(ENDPOINTS, None, stats, None, fallbacks=8)
    assert named == [URLS[at] for at in (1, 3, 0, 4, 2)]


def test_nothing_changes_where_the_choice_is_known() -> None:
    router, counts = new_instance(RoundRobinRouter, seed=1), monitor()
    stats = counts.get_request_stats(0.0)
    first = router.route_request(ENDPOINTS, None, stats, None)
    for _ in range(3):
        named = router.route_ranked(ENDPOINTS, None, stats, None, chosen=URLS[2])
        assert named[0] == URLS[2]
        assert len(set(named)) == 3
    following = URLS[(URLS.index(first) + 1) % 5]
    assert router.route_request(ENDPOINTS, None, stats, None) == following


def test_one_that_is_left_alone_is_no_fallback() -> None:
    router, counts = new_instance(PrefixCacheRouter, seed=1), monitor(refusals=1)
    counts.on_new_request(URLS[0], "a", 0.0)
    counts.on_request_failed(URLS[0], "a", 0.0, "connect")
    stats = counts.get_request_stats(0.1)
    named = router.route_ranked(ENDPOINTS, None, stats, None, BODY, fallbacks=8)
    assert sorted(named) == URLS[1:]


def test_one_endpoint_has_no_fallback() -> None:
    router = new_instance(PrefixCacheRouter, seed=1)
    assert router.route_ranked(ENDPOINTS[:1], None, {}, None, BODY) == [URLS[0]]
    assert router.route_ranked(ENDPOINTS, None, {}, None, BODY, fallbacks=0)[1:] == []
