"""Objects that raise, and late news of endpoints that left: a choice or a clear error."""

from typing import Any

import pytest
from routecore import (
    EndpointInfo,
    EngineStats,
    LeastConnectionsRouter,
    RequestStatsMonitor,
    RouteError,
    RoutingInterface,
)


def fleet(count: int) -> list[EndpointInfo]:
    """Endpoints `http://e0` and on."""
    return [EndpointInfo(url=f"http://e{i}") for i in range(count)]


def test_an_endpoint_that_raises_is_an_error_of_ours() -> None:
    class Broken:
        @property
        def url(self) -> str:
            raise OSError("gone")

    router = LeastConnectionsRouter()
    with pytest.raises(RouteError, match="url"):
        router.route_request([Broken()], {}, {}, None)
    assert router.route_request(fleet(1), {}, {}, None) == "http://e0"


def test_stats_that_raise_count_as_unknown() -> None:
    class Broken:
        @property
        def active_connections(self) -> int:
            raise OSError("gone")

    stats: Any = {"http://e0": Broken(), "http://e1": EngineStats(num_running_requests=4)}
    assert LeastConnectionsRouter().route_request(fleet(2), stats, {}, None).startswith("http://e")


def test_an_endpoint_that_leaves_is_not_chosen_again_and_takes_its_load_along() -> None:
    monitor = RequestStatsMonitor(60.0)
    router, endpoints = LeastConnectionsRouter(), fleet(3)
    for i in range(6):
        url = router.route_request(endpoints, {}, monitor.get_request_stats(0.0), None)
        monitor.on_new_request(url, str(i), 0.0)
    assert monitor.table.remove("http://e1")
    stay = [endpoints[0], endpoints[2]]
    chosen = {
        router.route_request(stay, {}, monitor.get_request_stats(0.0), None) for _ in range(6)
    }
    assert chosen == {"http://e0", "http://e2"}
    assert monitor.in_flight == 4
    # Its late answer changes nothing, and the endpoint may come back empty.
    monitor.on_request_complete("http://e1", "1", 1.0)
    stats = monitor.get_request_stats(1.0)
    assert router.route_request(endpoints, {}, stats, None) == "http://e1"


def test_a_constructor_that_raises_leaves_no_half_made_singleton() -> None:
    class Unfinished(RoutingInterface):
        def __init__(self) -> None:
            raise LookupError("not yet")

        def route_request(self, *args: Any, **kwargs: Any) -> str:
            return ""

    for _ in range(2):
        with pytest.raises(LookupError, match="not yet"):
            Unfinished()
