"""run(): figures, arrays, a Python router in a strategy's place, and settings it refuses."""

import gc
import math
from typing import Any

import numpy as np
import pytest
from replay.traces_dir import reference
from routecore import (
    ROUTERS,
    EndpointInfo,
    EngineStats,
    LeastConnectionsRouter,
    PrefixAffinityRouter,
    RequestStats,
    RouteError,
    RoutingInterface,
    SessionAffinityRouter,
)
from routecore.replay import PROFILES, ReplayResult, Trace, generate, run


def steady(requests: int = 200, gap: float = 20.0) -> Trace:
    """A prompt of ten blocks every `gap` ms, nothing shared."""
    trace = Trace(64)
    for at in range(requests):
        trace.add(at * gap, 640, 10, range(10 * at, 10 * at + 10))
    return trace


def test_round_robin_gives_dynamos_figures() -> None:
    result = run(reference("mooncake_conversation_trace.jsonl.gz"), strategy="round_robin")
    assert result.token_hit_rate == pytest.approx(0.0817, rel=0.01)
    ttft = result.ttft_ms
    assert [ttft.mean, ttft.p50, ttft.p90, ttft.p99] == pytest.approx(
        [321, 184, 702, 2048], rel=0.01
    )
    assert (result.tpot_ms.mean, result.e2e_ms.mean) == pytest.approx((8.1, 2913), rel=0.01)


def test_figures_are_those_of_the_arrays() -> None:
    result = run(generate("chat", requests=500), strategy="power_of_two", endpoints=3)
    each = result.per_request
    for spread, values in [
        (result.ttft_ms, each.ttft_ms),
        (result.tpot_ms, each.tpot_ms),
        (result.e2e_ms, each.e2e_ms),
    ]:
        known = values[~np.isnan(values)]
        expected = [known.mean(), *np.quantile(known, [0.5, 0.9, 0.99])]
        assert [spread.mean, spread.p50, spread.p90, spread.p99] == pytest.approx(expected)
    assert result.token_hit_rate == pytest.approx(
        each.cached_tokens.sum() / each.input_tokens.sum()
    )
    assert result.max_share == np.bincount(each.endpoint).max() / 500
    assert (result.served, result.failed, result.rejected) == (500, 0, 0)


@pytest.mark.parametrize("strategy", ROUTERS)
def test_the_same_seed_gives_the_same_replay(strategy: str) -> None:
    def once(seed: int) -> ReplayResult:
        return run(generate("documents", requests=300), strategy=strategy, seed=seed, jitter_ms=50)

    for name in ("endpoint", "arrival_ms", "first_token_ms", "end_ms", "cached_tokens"):
        np.testing.assert_array_equal(
            getattr(once(3).per_request, name), getattr(once(3).per_request, name)
        )
    assert (once(3).per_request.arrival_ms != once(4).per_request.arrival_ms).any()


class SeedPageRouter(RoutingInterface):
    """The documented example, word for word in its rule."""

    def route_request(
        self,
        endpoints: list[EndpointInfo],
        engine_stats: dict[str, EngineStats],
        request_stats: dict[str, RequestStats],
        request: Any,
    ) -> str:
        chosen = min(endpoints, key=lambda e: engine_stats[e.url].active_connections)
        return chosen.url


def test_the_documented_example_can_be_replayed() -> None:
    trace = steady(gap=15.0)
    fresh = run(trace, strategy=SeedPageRouter, endpoints=4, stats_period_ms=10)
    stale = run(trace, strategy=SeedPageRouter(), endpoints=4, stats_period_ms=5000)
    assert fresh.settings.strategy == "SeedPageRouter"
    assert fresh.max_share < 0.5
    # Between two scrapes all go to what looked idle.
    assert stale.max_share > 0.9


def test_a_python_router_sees_what_a_live_host_shows_it() -> None:
    seen: list[tuple[int, float]] = []

    class Watcher(RoutingInterface):
        session_key = "x-user"

        def route_request(self, endpoints, engine_stats, request_stats, request):  # type: ignore
            stats = request_stats.get(endpoints[0].url)
            seen.append(
                (stats.in_prefill_requests + stats.in_decoding_requests, 0) if stats else (0, 0)
            )
            assert request.headers["x-user"] == "session-0"
            assert set(engine_stats) == {e.url for e in endpoints}
            return endpoints[0].url

    trace = Trace(64)
    for at in range(3):
        trace.add(at, 640, 10, session="s")
    result = run(trace, strategy=Watcher(), endpoints=2)
    assert [count for count, _ in seen] == [0, 1, 2]
    assert result.max_share == 1


def test_our_own_classes_agree_with_the_compiled_strategies() -> None:
    trace = generate("chat", requests=400)
    for word, router in [
        ("session_affinity", SessionAffinityRouter(seed=1)),
        ("least_connections", LeastConnectionsRouter(ties="first", seed=1)),
    ]:
        params = {"ties": "first"} if word == "least_connections" else {}
        compiled = run(trace, strategy=word, params=params)
        python = run(trace, strategy=router)
        if word == "least_connections":
            same = (python.per_request.endpoint == compiled.per_request.endpoint).mean()
            assert same == 1
        # Sessions are hashed under other names here, so the homes differ, not the rule.
        assert python.flips_per_session == pytest.approx(compiled.flips_per_session, abs=0.05)


def test_equal_blocks_are_equal_text_to_a_python_router() -> None:
    trace = generate("documents", requests=300)
    by_prefix = run(trace, strategy=PrefixAffinityRouter(seed=1))
    by_load = run(trace, strategy=LeastConnectionsRouter(seed=1))
    assert by_prefix.token_hit_rate > by_load.token_hit_rate + 0.1


def test_a_router_that_raises_ends_the_replay_with_its_error() -> None:
    class Broken(RoutingInterface):
        calls = 0

        def route_request(self, endpoints, engine_stats, request_stats, request):  # type: ignore
            Broken.calls += 1
            raise LookupError("no idea")

    with pytest.raises(LookupError, match="no idea"):
        run(steady(), strategy=Broken())
    assert Broken.calls == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [("http://elsewhere", "expected the URL of an endpoint"), (None, "got None")],
)
def test_an_answer_that_is_no_endpoint_is_named(answer: Any, text: str) -> None:
    class Stray:
        def route_request(self, *args: Any) -> Any:
            return answer

    with pytest.raises(RouteError, match=text):
        run(steady(), strategy=Stray())


def test_a_coroutine_is_refused() -> None:
    class Later:
        async def route_request(self, *args: Any) -> str:
            return ""

    # Closed, too: a coroutine that is never awaited would be a warning, which is an error here.
    with pytest.raises(RouteError, match="make it synchronous"):
        run(steady(), strategy=Later())
    gc.collect()


def test_assignments_are_followed() -> None:
    numbers = [at % 3 for at in range(200)]
    result = run(steady(), strategy=numbers, endpoints=3)
    assert result.per_request.endpoint.tolist() == numbers
    for wrong in (numbers[:-1], [3] * 200, [-1] * 200, [0.5] * 200):
        with pytest.raises(
            RouteError, match="assignments: expected 200 endpoint numbers from 0 to 2"
        ):
            run(steady(), strategy=wrong, endpoints=3)


def test_a_replay_behind_the_same_choices_is_the_same_replay() -> None:
    trace = generate("agentic", requests=300)
    chosen = run(trace, strategy="prefix_affinity", endpoints=4)
    again = run(trace, strategy=chosen.per_request.endpoint, endpoints=4)
    np.testing.assert_array_equal(chosen.per_request.end_ms, again.per_request.end_ms)


def test_a_dead_endpoint_gets_nothing_and_loses_what_it_had_begun() -> None:
    result = run(
        steady(), strategy="round_robin", endpoints=4, events=["fail@2s:1", "join@3000ms:1"]
    )
    each = result.per_request
    down = (each.arrival_ms >= 2000) & (each.arrival_ms < 3000)
    assert not (each.endpoint[down] == 1).any()
    assert (each.endpoint[each.arrival_ms >= 3000] == 1).any()
    assert result.served + result.failed == 200
    assert 0 < result.failed < 10


def test_a_python_router_learns_of_dead_endpoints() -> None:
    result = run(steady(), strategy=SeedPageRouter, endpoints=2, events=["fail@1s:0"])
    each = result.per_request
    assert set(each.endpoint[each.arrival_ms > 1001].tolist()) == {1}


def test_a_weight_sends_more_to_the_faster_endpoint() -> None:
    result = run(
        steady(gap=8.0),
        strategy="least_connections",
        endpoints=2,
        speeds=[3.0, 1.0],
        params={"endpoint_weights": {"0": 3.0}},
    )
    share = np.bincount(result.per_request.endpoint) / 200
    assert share[0] > 0.65
    with pytest.raises(RouteError, match=r"endpoint_weights: .* for '7'"):
        run(steady(), endpoints=2, strategy="random", params={"endpoint_weights": {"7": 1}})


def test_more_routers_know_less() -> None:
    trace = generate("chat", requests=2000, rate=60)
    alone = run(trace, strategy="least_connections").max_over_mean_load
    apart = run(trace, strategy="least_connections", routers=8).max_over_mean_load
    assert apart > 1.1 * alone


def test_sessions_that_move_are_counted() -> None:
    trace = generate("chat", requests=600)
    stay = run(trace, strategy="session_affinity")
    move = run(trace, strategy="round_robin")
    assert (stay.endpoints_per_session, stay.flips_per_session) == (1, 0)
    assert move.flips_per_session > 1 < move.endpoints_per_session
    assert math.isnan(run(steady()).flips_per_session)
    assert run(steady()).as_dict()["flips_per_session"] is None


def test_progress_is_reported() -> None:
    reported: list[int] = []
    run(steady(10_000, gap=50), progress=reported.append)
    assert reported == [4096, 8192]

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(steady(10_000, gap=50), progress=stop)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"endpoints": 0}, "endpoints: expected from 1 to 65536, got 0"),
        ({"speedup": 0.0}, "speedup: expected a number above 0, got 0"),
        ({"speedup": math.nan}, "speedup: expected a number above 0, got NaN"),
        ({"engine": "abacus"}, "engine: unknown 'abacus'; valid: dynamo-polynomial"),
        ({"block_size": 48}, "expected a divisor or a multiple of the trace's 64"),
        ({"kv_blocks": 0}, "kv blocks: expected from 1"),
        ({"token_budget": 10}, "token budget of at least the 256 sequences"),
        ({"speeds": [1.0]}, "speeds: expected one for each of 8 endpoints, got 1"),
        ({"speeds": [0.0] * 8}, "engine speed: expected a number above 0, got 0"),
        ({"jitter_ms": -1.0}, "jitter: expected milliseconds ≥ 0, got -1"),
        ({"seed": -1}, "seed: expected from 0"),
        ({"events": ["fail@3"]}, "event 'fail@3': expected fail@TIME:ENDPOINT"),
        ({"events": ["fail@3s:8"]}, "an engine from 0 to 7"),
        ({"strategy": "fastest"}, "strategy: unknown 'fastest'; valid: round_robin"),
        ({"strategy": 7}, "strategy: expected a word, a router"),
        ({"params": {"zeal": 1}}, "round_robin takes no parameter 'zeal'; valid: none"),
        (
            {"strategy": "expected_latency", "params": {"kv_tokens": 1}},
            "kv_tokens: the engines of a replay tell their size",
        ),
        ({"strategy": SeedPageRouter, "params": {"zeal": 1}}, "only a strategy given by its word"),
        ({"strategy": SeedPageRouter, "routers": 2}, "a Python router can only be replayed as one"),
    ],
)
def test_settings_that_cannot_be_replayed_are_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RouteError) as raised:
        run(steady(3), **settings)
    assert text in str(raised.value)


@pytest.mark.parametrize("engine", PROFILES)
def test_every_profile_serves(engine: str) -> None:
    result = run(steady(50), engine=engine, endpoints=2)
    assert result.served == 50
    assert result.ttft_ms.mean > 1


def test_requests_wait_at_the_router_where_that_is_asked_for() -> None:
    trace = generate("documents", requests=300, rate=60.0, seed=1)
    fleet: dict[str, Any] = {"strategy": "expected_latency", "endpoints": 2, "kv_blocks": 1200}
    fleet["engine"] = "qwen3-32b-h100-tp2"
    plain, held = run(trace, **fleet), run(trace, hold=True, **fleet)
    assert not plain.per_request.wait_ms.any()
    each = held.per_request
    assert (each.wait_ms >= 0).all()
    assert held.wait_ms.mean > 0
    assert (each.ttft_ms >= each.wait_ms).all()
    assert held.served == plain.served == 300
    assert held.token_hit_rate > plain.token_hit_rate
    assert each.queue(50)[1].max() > 0
    with pytest.raises(RouteError, match="hold: only a strategy given by its word"):
        run(trace, strategy=[0] * 300, endpoints=2, hold=True)
