"""Bad input and normal bad days: an error that names thing and fix, or a route by load."""

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    EngineStats,
    LeastConnectionsRouter,
    PrefixAffinityRouter,
    RequestStatsMonitor,
    RoundRobinRouter,
    RouteError,
    RoutingInterface,
    SessionAffinityRouter,
    SingletonABCMeta,
    WeightedScoreRouter,
    _core,
)

EVERY = pytest.mark.parametrize("strategy", list(ROUTERS))


def fleet(n: int) -> list[EndpointInfo]:
    return [EndpointInfo(url=f"http://e{i}") for i in range(n)]


def request_of(**headers: str) -> Any:
    return SimpleNamespace(headers=headers)


def test_registries_agree() -> None:
    assert list(ROUTERS) == _core.STRATEGIES


@EVERY
def test_no_endpoints_and_none_eligible(strategy: str) -> None:
    router = ROUTERS[strategy]()
    with pytest.raises(RouteError, match=f"{strategy}: the endpoint list is empty"):
        router.route_request([], {}, {}, None)
    asleep = [EndpointInfo(url="http://a", sleep=True), EndpointInfo(url="http://b", healthy=False)]
    with pytest.raises(RouteError, match=f"{strategy}: .*asleep or unhealthy"):
        router.route_request(asleep, {}, {}, None)
    with pytest.raises(RouteError, match="asleep or unhealthy"):
        router.explain(asleep, {}, {}, None)
    assert router.route_request([*asleep, EndpointInfo(url="http://c")], {}, {}, None) == "http://c"


@EVERY
def test_strange_but_legal_arguments(strategy: str) -> None:
    router = ROUTERS[strategy]()
    bare = [SimpleNamespace(url="http://a"), SimpleNamespace(url="http://a")]
    odd_stats = {"http://a": object(), "http://elsewhere": EngineStats()}
    for engine_stats in (None, {}, odd_stats):
        for request_stats in (None, {}):
            for request in (None, request_of(), SimpleNamespace(headers={"x-session-id": "s"})):
                url = router.route_request(bare, engine_stats, request_stats, request)  # type: ignore[arg-type]
                assert url == "http://a"
    assert router.route_request(tuple(bare), {}, {}, None) == "http://a"
    with pytest.raises(RouteError, match="endpoint 1: expected an object with a str attribute url"):
        router.route_request([bare[0], object()], {}, {}, None)  # type: ignore[list-item]


@EVERY
def test_wrong_parameters_are_named(strategy: str) -> None:
    with pytest.raises(RouteError, match="seed"):
        ROUTERS[strategy](seed=-1)
    SingletonABCMeta._instances.clear()
    with pytest.raises(TypeError, match="nonsense"):
        ROUTERS[strategy](nonsense=1)
    with pytest.raises(RouteError, match='takes no parameter "nonsense"'):
        _core.Router(strategy, {"nonsense": 1, **needed(strategy)}, 0, (128, 16, 0))


def needed(strategy: str) -> dict[str, Any]:
    return {"weights": {"qps": 1.0}} if strategy == "weighted_score" else {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LeastConnectionsRouter(ties="last"), "one of random, first"),  # type: ignore[arg-type]
        (lambda: PrefixAffinityRouter(load_factor=0.5), "load_factor"),
        (lambda: PrefixAffinityRouter(block_chars=1), "block_chars"),
        (lambda: SessionAffinityRouter(load_factor=0.5), "load_factor"),
        (lambda: SessionAffinityRouter(method="maglev"), "rendezvous, ring"),  # type: ignore[arg-type]
        (lambda: WeightedScoreRouter(weights={"kv": 1}), 'unknown stat "kv": use one of in_fl'),
        (lambda: WeightedScoreRouter(weights={"qps": -1}), '"qps"'),
        (lambda: WeightedScoreRouter(weights={}), "at least one term"),
        (lambda: WeightedScoreRouter(weights=[]), "weights: expected a dict"),  # type: ignore[arg-type]
        (lambda: WeightedScoreRouter(weights={"kv": 1}), "active_request, load_aware, session"),
        (lambda: PrefixAffinityRouter(endpoint_weights={"http://a": "x"}), "URL → capacity"),  # type: ignore[dict-item]
        (lambda: LeastConnectionsRouter(endpoint_weights={"http://a": 0}), "endpoint_weights"),
        (
            lambda: _core.Router("fastest", {}, 0, (128, 16, 0)),
            'unknown strategy "fastest": use one of',
        ),
    ],
)
def test_wrong_values_list_the_valid_ones(make: Any, said: str) -> None:
    with pytest.raises(RouteError, match=said):
        make()


def test_a_subclass_that_raises_hurts_nobody_else() -> None:
    class Broken(RoutingInterface):
        def route_request(self, *_: Any) -> str:  # type: ignore[override]
            raise RuntimeError("mine")

    class Endpoint:
        @property
        def url(self) -> str:
            raise RuntimeError("no url today")

    with pytest.raises(RuntimeError, match="mine"):
        Broken().route_request()
    router = LeastConnectionsRouter()
    with pytest.raises(RouteError, match="endpoint 0"):
        router.route_request([Endpoint()], {}, {}, None)
    assert router.route_request(fleet(1), {}, {}, None) == "http://e0"


def test_a_list_changed_in_place_and_lists_in_turn() -> None:
    router, endpoints = RoundRobinRouter(), fleet(3)
    other = [EndpointInfo(url="http://x"), EndpointInfo(url="http://y")]
    seen = [
        router.route_request(which, {}, {}, None) for _ in range(3) for which in (endpoints, other)
    ]
    assert seen[::2] == ["http://e0", "http://e1", "http://e2"]
    assert seen[1::2] == ["http://x", "http://y", "http://x"]
    endpoints[0] = EndpointInfo(url="http://new")
    assert {router.route_request(endpoints, {}, {}, None) for _ in range(3)} == {
        "http://new",
        "http://e1",
        "http://e2",
    }
    endpoints.clear()
    with pytest.raises(RouteError, match="empty"):
        router.route_request(endpoints, {}, {}, None)


def test_fresh_equal_objects_each_call_and_flags_that_flip() -> None:
    router = RoundRobinRouter()
    assert [router.route_request(fleet(2), {}, {}, None) for _ in range(3)] == [
        "http://e0",
        "http://e1",
        "http://e0",
    ]
    asleep = [EndpointInfo(url="http://e0", sleep=True), EndpointInfo(url="http://e1")]
    assert {router.route_request(asleep, {}, {}, None) for _ in range(3)} == {"http://e1"}


def test_an_endpoint_removed_between_two_calls() -> None:
    table = EndpointTable()
    monitor, endpoints = RequestStatsMonitor(60.0, table=table), fleet(3)
    router = LeastConnectionsRouter(seed=1)
    stats = monitor.get_request_stats(0.0)
    router.route_request(endpoints, {}, stats, None)
    table.remove("http://e1")
    for _ in range(9):
        router.route_request(endpoints, {}, stats, None)
    assert table.column("in_flight").sum() >= 9
    table.set_eligible("http://e1", False)
    assert "http://e1" not in {router.route_request(endpoints, {}, stats, None) for _ in range(9)}
    with pytest.raises(RouteError, match="unknown endpoint"):
        table.set_eligible("http://nobody", True)


def test_endpoints_that_come_and_go_leave_no_growth() -> None:
    table = EndpointTable()
    monitor = RequestStatsMonitor(60.0, table=table)
    router = LeastConnectionsRouter()
    for i in range(10_000):
        table.add(f"http://pod-{i}")
        assert table.remove(f"http://pod-{i}")
        router.route_request(
            [EndpointInfo(url=f"http://gone-{i}")], {}, monitor.get_request_stats(i), None
        )
    assert table.rows < 1500


def test_every_strategy_from_eight_threads() -> None:
    endpoints = fleet(5)
    routers = [make() for make in ROUTERS.values()]
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for i in range(300):
                body = {"prompt": f"{thread} {i}" * 40}
                for router in routers:
                    router.route_request(endpoints[: 1 + i % 5], {}, {}, None, body)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failed


@EVERY
def test_a_batch_chooses_for_each_request(strategy: str) -> None:
    endpoints = fleet(4)
    chosen = ROUTERS[strategy](seed=3).route_batch(
        endpoints, {}, {}, [None, "session", {"prompt": "hello"}] * 40
    )
    assert (chosen.shape, str(chosen.dtype)) == ((120,), "uint32")
    assert chosen.max() < 4
    with pytest.raises(RouteError, match="empty"):
        ROUTERS[strategy]().route_batch([], {}, {}, [None])


def test_a_batch_spreads_over_equal_endpoints() -> None:
    chosen = LeastConnectionsRouter(seed=3).route_batch(fleet(4), {}, {}, [None] * 100)
    assert Counter(chosen.tolist()) == {0: 25, 1: 25, 2: 25, 3: 25}


def test_capacity_weights_share_load_in_proportion() -> None:
    router = LeastConnectionsRouter(endpoint_weights={"http://e0": 3.0}, seed=1)
    chosen = Counter(router.route_batch(fleet(2), {}, {}, [None] * 400).tolist())
    assert 290 <= chosen[0] <= 310
