"""Objects that raise, and late news of endpoints that left: a choice or a clear error."""

from asyncio import CancelledError
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


class Raises:
    """An endpoint, or stats, one attribute of which raises."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.name, self.error = name, error

    def __getattr__(self, name: str) -> object:
        if name == self.name:
            raise self.error
        if name == "url":
            return "http://e0"
        raise AttributeError(name)


def test_what_a_getter_raised_is_the_cause() -> None:
    cause = OSError("gone")
    with pytest.raises(RouteError, match=r"endpoint 1: .* url") as raised:
        LeastConnectionsRouter().route_request(
            [*fleet(1), Raises("url", cause)],  # type: ignore[list-item]
            {},
            {},
            None,
        )
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError])
@pytest.mark.parametrize("name", ["url", "healthy", "sleep", "active_connections"])
def test_an_interrupt_is_nobodys_to_pass_over(name: str, error: type[BaseException]) -> None:
    router, broken = LeastConnectionsRouter(), Raises(name, error())
    endpoints: Any = fleet(1) if name == "active_connections" else [broken]
    with pytest.raises(error):
        router.route_request(endpoints, {"http://e0": broken}, {}, None)  # type: ignore[dict-item]
    assert router.route_request(fleet(1), {}, {}, None) == "http://e0"


def test_endpoints_may_come_from_a_generator_a_set_or_a_view() -> None:
    endpoints, router = fleet(3), LeastConnectionsRouter()
    urls = {e.url for e in endpoints}
    for given in ((e for e in endpoints), {e.url: e for e in endpoints}.values(), set(endpoints)):
        assert router.route_request(given, {}, {}, None) in urls  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="empty"):
        router.route_request((e for e in ()), {}, {}, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="iterable"):
        router.route_request(None, {}, {}, None)  # type: ignore[arg-type]


def test_what_a_generator_raises_passes() -> None:
    def broken() -> Any:
        yield from fleet(1)
        raise LookupError("of the generator")

    with pytest.raises(LookupError, match="of the generator"):
        LeastConnectionsRouter().route_request(broken(), {}, {}, None)
