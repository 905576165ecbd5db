"""Endpoint lists that change in place, at every length, on either path."""

import inspect
from typing import Any

import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    EngineStats,
    LeastConnectionsRouter,
    RequestStatsMonitor,
    RoutingInterface,
)
from routecore.endpoints.table import EndpointTable
from routecore.routers import CompiledRouter


def fleet(count: int) -> list[EndpointInfo]:
    """Endpoints `http://e0` and on."""
    return [EndpointInfo(url=f"http://e{i}") for i in range(count)]


def busy(endpoints: list[EndpointInfo]) -> Any:
    """Our monitor's view, one request on each endpoint."""
    monitor = RequestStatsMonitor(60.0, table=EndpointTable())
    for endpoint in endpoints:
        monitor.on_new_request(endpoint.url, endpoint.url, 0.0)
    return monitor.get_request_stats(0.0)


@pytest.mark.parametrize("count", [2, 64, 256])
@pytest.mark.parametrize("path", ["resident", "plain"])
def test_an_exchange_in_place_is_noticed_at_once(count: int, path: str) -> None:
    endpoints = fleet(count)
    stats: Any = busy(endpoints) if path == "resident" else dict(busy(endpoints))
    router = LeastConnectionsRouter(seed=1)
    for _ in range(3):
        router.route_request(endpoints, {}, stats, None)
    endpoints[count // 2] = EndpointInfo(url="http://idle")
    assert router.route_request(endpoints, {}, stats, None) == "http://idle"
    endpoints[count // 2] = EndpointInfo(url="http://idle", sleep=True)
    assert router.route_request(endpoints, {}, stats, None) != "http://idle"


def test_an_exchange_in_a_long_list_is_noticed_within_a_round() -> None:
    endpoints = fleet(1000)
    stats: Any = busy(endpoints)
    router = LeastConnectionsRouter(seed=1)
    for _ in range(3):
        router.route_request(endpoints, {}, stats, None)
    endpoints[500] = EndpointInfo(url="http://idle")
    seen = [router.route_request(endpoints, {}, stats, None) for _ in range(1000 // 16 + 1)]
    assert "http://idle" in seen
    # The other ways in, and the plain path, compare the list as a whole.
    endpoints[501] = EndpointInfo(url="http://new")
    assert router.explain(endpoints, {}, stats, None).url == "http://new"
    endpoints[502] = EndpointInfo(url="http://newer")
    assert 502 in router.route_batch(endpoints, {}, stats, [None, None])
    endpoints[503] = EndpointInfo(url="http://newest")
    engine = {e.url: EngineStats(num_running_requests=1) for e in endpoints}
    engine["http://newest"] = EngineStats()
    assert router.route_request(endpoints, engine, {}, None) == "http://newest"


def test_what_left_a_long_list_in_place_is_never_chosen() -> None:
    endpoints = fleet(1000)
    stats: Any = busy(endpoints)
    router = LeastConnectionsRouter(seed=1)
    router.route_request(endpoints, {}, stats, None)
    for at in range(0, 1000, 7):
        gone = endpoints[at]
        endpoints[at] = EndpointInfo(url=f"http://other-{at}")
        stats.table.sent(endpoints[at].url, "1", 0.0)
        stats.table.sent(endpoints[at].url, "2", 0.0)
        stats.table.end(gone.url, gone.url, 0.0)  # idle now: the choice, were it there
        assert router.route_request(endpoints, {}, stats, None) in {e.url for e in endpoints}


@pytest.mark.parametrize("change", ["append", "pop", "insert", "rotate", "clear and refill"])
def test_changes_that_move_an_end_are_noticed_at_once(change: str) -> None:
    endpoints = fleet(1000)
    stats: Any = busy(endpoints)
    router = LeastConnectionsRouter(seed=1)
    for _ in range(3):
        router.route_request(endpoints, {}, stats, None)
    idle = EndpointInfo(url="http://idle")
    if change == "append":
        endpoints.append(idle)
    elif change == "pop":
        endpoints.pop(500)
        endpoints[400] = idle
    elif change == "insert":
        endpoints.insert(500, idle)
        endpoints.pop()
    elif change == "rotate":
        endpoints[400] = idle
        endpoints.append(endpoints.pop(0))
    else:
        endpoints[:] = [*fleet(10), idle]
    assert router.route_request(endpoints, {}, stats, None) == "http://idle"


@pytest.mark.parametrize("name", list(ROUTERS))
def test_the_documented_call_by_position_and_by_keyword(name: str) -> None:
    endpoints, router = fleet(1), ROUTERS[name]()
    named: Any = {"engine_stats": {}, "request_stats": {}, "request": None}
    calls = [
        router.route_request(endpoints, {}, {}, None),
        router.route_request(endpoints, {}, {}, None, {"prompt": "x"}),
        router.route_request(endpoints, request_json=None, **named),
        router.route_request(endpoints=endpoints, **named),
    ]
    assert calls == ["http://e0"] * 4
    with pytest.raises(TypeError):
        router.route_request(endpoints, {}, {})  # type: ignore[call-arg]
    documented = ["endpoints", "engine_stats", "request_stats", "request", "request_json"]
    assert list(inspect.signature(router.route_request).parameters) == documented
    assert isinstance(router, RoutingInterface)


def test_a_subclass_of_a_strategy_may_override_or_extend_the_call() -> None:
    class Mine(LeastConnectionsRouter):
        def route_request(self, endpoints: Any, *others: Any, **named: Any) -> str:
            return "mine, not " + super().route_request(endpoints, *others, **named)

    class Plain(LeastConnectionsRouter):
        pass

    assert Mine().route_request(fleet(1), {}, {}, None) == "mine, not http://e0"
    assert Plain().route_request(fleet(1), {}, {}, None) == "http://e0"
    assert CompiledRouter.route_request(Plain(), fleet(1), {}, {}, None) == "http://e0"
