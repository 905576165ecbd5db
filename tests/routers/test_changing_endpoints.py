"""Endpoint objects that change in place, and objects that say they are equal and are not."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    LeastConnectionsRouter,
    PrefixCacheRouter,
    RequestStatsMonitor,
    new_instance,
)
from routecore.endpoints.table import EndpointTable
from routecore.kv_events import KVIndex


@dataclasses.dataclass
class Data:
    url: str
    healthy: bool = True
    sleep: bool = False


class Slots:
    __slots__ = ("healthy", "sleep", "url")

    def __init__(self, url: str) -> None:
        self.url, self.healthy, self.sleep = url, True, False


class Properties:
    """Its attributes are computed, and some things are only there sometimes."""

    def __init__(self, url: str) -> None:
        self.state = {"url": url, "healthy": True, "sleep": False}

    def __getattr__(self, name: str) -> Any:
        if name == "state":
            raise AttributeError(name)
        return self.state[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state":
            super().__setattr__(name, value)
        else:
            self.state[name] = value


class Equal(Slots):
    """Says that it is equal to everything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class Struct(msgspec.Struct):
    url: str
    healthy: bool = True
    sleep: bool = False


def namespace(url: str) -> Any:
    return SimpleNamespace(url=url, healthy=True, sleep=False)


KINDS: list[Callable[[str], Any]] = [Data, Slots, Properties, Equal, Struct, namespace]
FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "list": lambda made: made,
    "tuple": tuple,
    "fresh": list,
    "generator": lambda made: (e for e in made),
}


class Case:
    """Calls of one router with the same objects, in one form."""

    def __init__(self, made: list[Any], form: str, path: str, name: str = "least_connections"):
        self.made, self.form = made, FORMS[form]
        self.same: Any = tuple(made) if form == "tuple" else None
        self.router: Any = new_instance(ROUTERS[name], seed=1)
        monitor = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
        self.stats: Any = monitor.get_request_stats(0.0) if path == "resident" else {}

    def endpoints(self) -> Any:
        return self.form(self.made) if self.same is None else self.same

    def urls(self, calls: int = 12) -> set[str]:
        return {
            self.router.route_request(self.endpoints(), {}, self.stats, None, {"prompt": "x" * 500})
            for _ in range(calls)
        }


@pytest.mark.parametrize("path", ["resident", "plain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", KINDS)
def test_what_an_endpoint_says_holds_from_the_next_call_on(
    make: Callable[[str], Any], form: str, path: str
) -> None:
    made = [make("a"), make("b"), make("c")]
    case = Case(made, form, path, "round_robin")
    assert case.urls() == {"a", "b", "c"}
    made[0].healthy = False
    assert case.urls() == {"b", "c"}
    made[0].healthy, made[1].sleep = True, True
    assert case.urls() == {"a", "c"}
    made[2].url = "d"
    assert case.urls() == {"a", "d"}
    made[1].sleep = False
    assert case.urls() == {"a", "b", "d"}


@pytest.mark.parametrize("name", [n for n in ROUTERS if n != "prefill_decode"])
def test_no_strategy_chooses_who_is_out(name: str) -> None:
    made = [Data("a"), Data("b")]
    case = Case(made, "list", "resident", name)
    for out, other in ((0, "b"), (1, "a")) * 3:
        made[out].healthy = False
        assert case.urls(4) == {other}
        made[out].healthy = True


@pytest.mark.parametrize("count", [17, 256, 257, 1000])
@pytest.mark.parametrize("form", ["list", "tuple"])
def test_of_a_long_list_who_is_out_is_never_chosen_and_who_is_back_is_seen(
    count: int, form: str
) -> None:
    made = [Data(str(i)) for i in range(count)]
    case = Case(made, form, "resident")
    case.urls(3)
    for endpoint in made[:-1]:
        endpoint.healthy = False
    assert case.urls(50) == {str(count - 1)}
    made[count // 2].healthy, made[-1].healthy = True, False
    rounds = 1 if count <= 256 else count // 16 + 2
    made[-1].healthy = True
    assert str(count // 2) in case.urls(rounds + 1)
    made[-1].healthy = False
    made[count // 2].url = "moved"
    assert case.urls(count // 16 + 2) == {"moved"}


def test_an_equal_object_of_another_url_does_not_bring_back_who_left() -> None:
    for name in ("least_connections", "round_robin"):
        first, rest = EndpointInfo(url="a"), [EndpointInfo(url=str(i)) for i in range(3)]
        case = Case([first, *rest], "fresh", "resident", name)
        assert case.urls() == {"a", "0", "1", "2"}
        case.made[2] = Equal("new")
        assert case.urls() == {"a", "0", "new", "2"}


@pytest.mark.parametrize("path", ["resident", "plain"])
def test_endpoints_made_anew_of_which_the_first_is_the_same_take_turns(path: str) -> None:
    case = Case([EndpointInfo(url="a")], "list", path, "round_robin")
    first, turns = case.made[0], []
    for _ in range(8):
        case.made = [first, EndpointInfo(url="b")]
        turns += case.urls(1)
    assert turns == ["a", "b"] * 4


def test_a_getter_that_flips_at_every_look_is_answered_all_the_same() -> None:
    class Flips:
        def __init__(self, url: str) -> None:
            self.url, self.looks = url, 0

        @property
        def healthy(self) -> bool:
            self.looks += 1
            return self.looks % 2 == 0

    router = LeastConnectionsRouter(seed=1)
    endpoints: Any = [Flips("a"), Data("b")]
    for _ in range(20):
        assert router.route_request(endpoints, {}, {}, None) in {"a", "b"}


class Pair(NamedTuple):
    url: str


def test_objects_without_flags_may_be_chosen() -> None:
    assert Case([Pair("a"), Pair("b")], "list", "resident").urls() == {"a", "b"}


@pytest.mark.parametrize("make", [Data, EndpointInfo])
@pytest.mark.parametrize("path", ["resident", "plain"])
def test_who_sleeps_loses_what_was_learned_of_its_cache(make: Any, path: str) -> None:
    monitor = RequestStatsMonitor(60.0, table=EndpointTable())
    router = PrefixCacheRouter(seed=1)
    body = {"prompt": "word " * 2000}

    def cached(endpoints: Any) -> float:
        stats: Any = monitor.get_request_stats(9.0) if path == "resident" else {}
        found = router.explain(endpoints, {}, stats, None, body).candidates[0].terms
        return {term.name: term.value for term in found}["cached"]

    stats: Any = monitor.get_request_stats(0.0) if path == "resident" else {}
    awake = [make(url="a")]
    router.route_request(awake, {}, stats, None, body)
    if path == "resident":
        monitor.on_new_request("a", "1", 1.0)
        monitor.on_request_response("a", "1", 2.0)
    assert cached(awake) > 0
    router.explain([make(url="a", sleep=True), make(url="b")], {}, stats, None, body)
    if path == "resident":
        monitor.on_request_complete("a", "1", 3.0)
    assert cached([make(url="a")]) == 0


def test_who_sleeps_in_place_loses_its_cache_and_its_events() -> None:
    index = KVIndex(seed=1)
    tokens = list(range(64))
    event = ["BlockStored", [1, 2, 3, 4], None, tokens, 16]
    index.core.live("a", 0, [(0, msgspec.msgpack.encode([1.0, [event], None]))], False)
    router = PrefixCacheRouter(seed=1, kv_index=index)
    own = [Data("a"), Data("b")]
    router.route_request(own, {}, {}, None, {"prompt": tokens})
    assert index.matched([*tokens, 1], ["a"])[0][0] == 64
    own[0].sleep = True
    router.route_request(own, {}, {}, None, {"prompt": tokens})
    own[0].sleep = False
    router.route_request(own, {}, {}, None, {"prompt": tokens})
    assert index.matched([*tokens, 1], ["a"])[0][0] == 0
