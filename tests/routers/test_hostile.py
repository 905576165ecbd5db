"""Objects that fight back: whatever they do, only ordinary exceptions come out."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    EngineStats,
    PrefixAffinityRouter,
    RequestStatsMonitor,
    RouteError,
    SingletonABCMeta,
    _core,
)


class Wild:
    """Raises, or returns nonsense, wherever it is touched."""

    def __getattr__(self, name: str) -> Any:
        if name in ("url", "headers", "_body"):
            return Wild()
        raise ZeroDivisionError(name)

    def __getitem__(self, key: Any) -> Any:
        raise ZeroDivisionError(key)

    def __iter__(self) -> Any:
        raise ZeroDivisionError

    def __len__(self) -> int:
        return -7

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class Text(str):
    """A str that changes what it is in while it is read."""

    inside: dict[Any, Any]

    def __getitem__(self, key: Any) -> Any:
        self.inside[f"new {len(self.inside)}"] = "more"
        return "x" * 10


class Values(dict[Any, Any]):
    """A dict whose look-ups raise."""

    def __getitem__(self, key: Any) -> Any:
        raise ZeroDivisionError(key)


def changing() -> dict[str, Any]:
    """A body with a part that grows while it is walked."""
    part: dict[Any, Any] = {"a": "b"}
    text = Text("y" * 100_000)
    text.inside = part
    part["text"] = text
    part["end"] = "z"
    return {"prompt": [part]}


def endpoint(url: Any) -> Any:
    """An endpoint whose URL is anything."""
    return type("Endpoint", (), {"url": url, "sleep": Wild(), "healthy": 1})()


ANYTHING: Any = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=5)
        | st.builds(Wild)
        | st.builds(Values)
        | st.builds(changing)
        | st.lists(ANYTHING, max_size=3)
        | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=3)
    )
)
URLS = st.sampled_from(["http://a", "http://b", "", "\ud800", 7, None, Wild()])
ENDPOINTS = st.lists(
    URLS.map(endpoint) | st.builds(EndpointInfo, url=st.just("http://a")) | ANYTHING, max_size=4
)
STATS = st.dictionaries(
    st.sampled_from(["http://a", "http://b", "\ud800"]),
    st.builds(EngineStats, active_connections=st.none() | st.floats(0) | st.just("1")) | ANYTHING,
)


def attempt(call: Any, *args: Any) -> None:
    """Anything that an `except Exception` of the host catches will do."""
    with contextlib.suppress(Exception):
        call(*args)


@settings(max_examples=300)  # each panic that is caught prints its trace, which takes time
@given(st.sampled_from(list(ROUTERS)), ENDPOINTS | ANYTHING, STATS | ANYTHING, ANYTHING, ANYTHING)
def test_hostile_arguments_never_pass_an_except_exception(
    name: str, endpoints: Any, stats: Any, request: Any, body: Any
) -> None:
    SingletonABCMeta._instances.clear()
    router = ROUTERS[name]()
    view = RequestStatsMonitor(60.0).get_request_stats(0.0)
    for seen in (stats, view):
        attempt(router.route_request, endpoints, stats, seen, request, body)
        attempt(router.explain, endpoints, stats, seen, request, body)
        attempt(router.route_batch, endpoints, stats, seen, [body, request])
    fine = [EndpointInfo(url="http://fine")]
    assert router.route_request(fine, {}, {}, None) == "http://fine"


@settings(max_examples=300)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_hostile_table_never_passes_an_except_exception(one: Any, two: Any, three: Any) -> None:
    table = EndpointTable()
    table.add("http://a")
    for name in [name for name in dir(_core.Table) if not name.startswith("_")]:
        method = getattr(table.core, name)
        if callable(method):
            for args in ((), (one,), (one, two), (one, two, three), ("http://a", two, three, True)):
                attempt(method, *args)
    attempt(table.load_columns, {"qps": one, "ttft": two})
    attempt(_core.Table, one, two)
    attempt(_core.Router, "weighted_score", {"weights": one, "normalise": two}, 0, 128)
    table.add("http://a")
    column: Any = np.array([3.0])
    table.load_columns({"qps": column}, urls=["http://a"])
    assert table.column("qps")[table.core.row("http://a")] == 3.0


def test_a_dict_that_changes_while_it_is_read_is_an_error_of_ours_or_a_choice() -> None:
    router = PrefixAffinityRouter()
    endpoints = [EndpointInfo(url="http://a")]
    try:
        assert router.route_request(endpoints, {}, {}, None, changing()) == "http://a"
    except RouteError as error:
        assert "please report it" in str(error)
    assert router.route_request(endpoints, {}, {}, None, {"prompt": "x"}) == "http://a"


def test_stats_that_change_their_dict_while_they_are_read() -> None:
    stats: dict[str, Any] = {}

    class Grows:
        @property
        def active_connections(self) -> int:
            stats[f"http://new-{len(stats)}"] = self
            return len(stats)

    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(9)]
    stats.update({e.url: Grows() for e in endpoints})
    for name in ("least_connections", "power_of_two"):
        assert ROUTERS[name]().route_request(endpoints, stats, {}, None) in stats


def test_an_object_that_raises_a_base_exception_is_not_swallowed_as_a_panic() -> None:
    class Stops:
        @property
        def url(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RouteError)):
        ROUTERS["least_connections"]().route_request([Stops()], {}, {}, None)
