"""The production-stack integration against a stand-in of its host; see the other file for it."""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from production_stack_host import STAND_INS
from prometheus_client import REGISTRY
from routecore import ROUTERS, RouteError

CALLBACKS = "routecore.integrations.production_stack.callbacks"
URLS = [f"http://engine{n}:8000" for n in range(4)]
BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 600}]}


def endpoints(*urls: str, label: str = "default") -> list[Any]:
    return [SimpleNamespace(url=url, model_label=label) for url in urls]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def good(_url: str) -> None:
    await asyncio.sleep(0)


def figure(name: str, **labels: str) -> float:
    found = 0.0
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found += sample.value
    return found


# Start and reload


@pytest.mark.parametrize(
    "logic",
    [
        "roundrobin",
        "session",
        "kvaware",
        "prefixaware",
        "disaggregated_prefill",
        "disaggregated_prefill_orchestrated",
    ],
)
def test_the_host_builds_our_router_whatever_its_logic(stand_in: Any, logic: str) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"], "session_key": "user"}
    app = stand_in.start(logic, CALLBACKS, URLS, max_instance_failover_reroute_attempts=2, **flags)
    router = app.state.router
    host_class = next(c for c in type(router).__mro__ if c.__module__.startswith("vllm_router"))
    assert type(router).__name__ == host_class.__name__
    assert type(router).__module__.startswith("routecore.")
    assert router.max_instance_failover_reroute_attempts == 2
    assert app.state.request_stats_monitor.in_flight == 0
    if logic == "session":
        assert router.session_key == "user"


def test_the_flags_of_the_command_line_reach_our_router(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS, prefix_min_match_length=4096)
    assert app.state.router.prefix_min_match_length == 4096


def test_a_reload_keeps_us_with_what_it_forgets_and_what_we_learned(stand_in: Any) -> None:
    flags = {"max_instance_failover_reroute_attempts": 3, "prefix_min_match_length": 128}
    app = stand_in.start("prefixaware", CALLBACKS, URLS, **flags)
    run(stand_in.handle(BODY, "before", good))  # the router is seen to be ours
    before = app.state.router
    stand_in.reload("prefixaware", CALLBACKS, URLS[:2])
    after = app.state.router
    assert after is not before
    assert after.decision is before.decision
    assert after.max_instance_failover_reroute_attempts == 3
    assert after.prefix_min_match_length == 128
    assert run(stand_in.handle(BODY, "after", good)) in URLS[:2]


def test_a_reload_may_change_the_logic(stand_in: Any) -> None:
    from routecore.integrations import production_stack as ours

    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    stand_in.reload("session", CALLBACKS, URLS, session_key="user")
    assert isinstance(app.state.router, ours.SessionRouter)
    assert stand_in.routing_logic.get_routing_logic() is app.state.router


def test_a_router_that_the_host_built_before_us_is_replaced(stand_in: Any) -> None:
    # As the watcher of the dynamic configuration does when it is faster than the start.
    from vllm_router.stats import request_stats

    request_stats.RequestStatsMonitor(30.0)
    theirs = stand_in.routing_logic.initialize_routing_logic(
        "prefixaware", prefix_min_match_length=7, max_instance_failover_reroute_attempts=1
    )
    stand_in.app.state.router = theirs
    stand_in._callbacks(CALLBACKS)
    ours = stand_in.app.state.router
    assert ours is not theirs
    assert ours is stand_in.routing_logic.get_routing_logic()
    assert (ours.prefix_min_match_length, ours.max_instance_failover_reroute_attempts) == (7, 1)
    assert request_stats.get_request_stats_monitor().sliding_window_size == 30.0


def test_a_router_without_callbacks_in_the_reload_is_replaced_at_the_next_request(
    stand_in: Any,
) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    app.state.router = stand_in.routing_logic.RoutingInterface
    theirs = type(app.state.callbacks)  # a class that no one replaces
    app.state.router = stand_in.routing_logic.get_routing_logic()
    assert theirs.__name__ == "Callbacks"
    install = sys.modules["routecore.integrations.production_stack.install"]
    stock = install._theirs["RoundRobinRouter"]
    app.state.router = type.__call__(stock)
    run(stand_in.handle(BODY, "1", good))
    assert type(app.state.router) is not stock


def test_asking_for_the_callbacks_again_changes_nothing(stand_in: Any) -> None:
    from routecore.integrations import production_stack as ours

    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    router, monitor = app.state.router, app.state.request_stats_monitor
    assert ours.callbacks is ours.callbacks
    assert (app.state.router, app.state.request_stats_monitor) == (router, monitor)
    with pytest.raises(AttributeError, match="no attribute 'callback'"):
        _ = ours.callback


def test_a_closed_router_goes_on_working(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    app.state.router.close()
    app.state.router.close()
    assert run(stand_in.handle(BODY, "1", good)) in URLS


def test_static_endpoints_are_made_once_and_again_when_health_changes(stand_in: Any) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)
    discovery = stand_in.service_discovery._global_service_discovery
    first, second = discovery.get_endpoint_info(), discovery.get_endpoint_info()
    assert first is not second
    assert all(a is b for a, b in zip(first, second, strict=True))
    discovery.unhealthy_endpoint_hashes = [URLS[0]]
    assert [e.url for e in discovery.get_endpoint_info()] == URLS[1:]


# The other package of the name, and none


def subprocess_says(code: str, *paths: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[*map(str, paths)]!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_without_the_host_the_error_says_what_to_install(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.startswith('vllm_router') else find(n, *a)\n"
    )
    said = subprocess_says(hide + "import routecore.integrations.production_stack", tmp_path)
    assert "ImportError: production-stack's vllm_router is not installed: install" in said


def test_the_other_package_of_the_same_name_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "vllm_router").mkdir()
    (tmp_path / "vllm_router" / "__init__.py").write_text("")
    said = subprocess_says("import routecore.integrations.production_stack", tmp_path)
    assert "ImportError: the vllm_router that is installed is not production-stack's" in said


# Settings


def test_a_strategy_and_its_parameters_come_from_the_environment(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    monkeypatch.setenv("ROUTECORE_PARAMS", "load_factor=2, seed=1")
    with caplog.at_level("INFO"):
        app = stand_in.start("prefixaware", CALLBACKS, URLS)
    assert app.state.router.decision.strategy == "prefix_affinity"
    lines = [r.getMessage() for r in caplog.records if "strategy prefix_affinity" in r.getMessage()]
    assert lines == [
        "routecore: routing logic prefixaware, strategy prefix_affinity load_factor=2 seed=1, "
        "mode active"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", 'strategy = "weighted_score"\n[params.weights]\nin_flight = 1.5\n'),
        ("c.yaml", "strategy: weighted_score\nparams: {weights: {in_flight: 1.5}}\n"),
    ],
)
def test_a_file_names_the_strategy_and_a_variable_overrides_it(
    stand_in: Any, tmp_path: Path, name: str, text: str
) -> None:
    from routecore.integrations.production_stack import settings

    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    found = settings.load({"ROUTECORE_CONFIG": str(tmp_path / name)})
    assert (found.strategy, found.params) == ("weighted_score", {"weights": {"in_flight": 1.5}})
    again = {"ROUTECORE_CONFIG": str(tmp_path / name), "ROUTECORE_PARAMS": '{"seed": 3}'}
    assert settings.load(again).params == {"seed": 3}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ROUTECORE_STRATEGY": "fastest"}, "unknown 'fastest'; valid: round_robin"),
        (
            {"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "sed=1"},
            "random takes no parameter 'sed'; valid: endpoint_weights, seed",
        ),
        (
            {"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "seed=x"},
            "random: parameter 'seed': Expected `int | null`, got `str`",
        ),
        ({"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "seed"}, "ROUTECORE_PARAMS='seed'"),
        ({"ROUTECORE_PARAMS": "seed=1"}, "need a strategy to belong to"),
        ({"ROUTECORE_MODE": "off"}, "ROUTECORE_MODE='off': Invalid enum value 'off'"),
        ({"ROUTECORE_LEASE_TIMEOUT": "soon"}, "ROUTECORE_LEASE_TIMEOUT='soon'"),
        ({"ROUTECORE_CONFIG": "none.toml"}, "ROUTECORE_CONFIG='none.toml': No such file"),
        ({"ROUTECORE_CONFIG": "bad.toml"}, "bad.toml: Object contains unknown field `strateggy`"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_a_line_that_names_it(
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    said: str,
) -> None:
    Path("bad.toml").write_text('strateggy = "random"\n')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RouteError) as caught:
        stand_in.start("prefixaware", CALLBACKS, URLS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", [*ROUTERS])
@pytest.mark.parametrize("logic", ["roundrobin", "prefixaware"])
def test_every_strategy_routes_behind_every_way_of_calling(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, logic: str
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", strategy)
    stand_in.start(logic, CALLBACKS, URLS)
    before = figure("routecore_decisions_total", strategy=strategy, outcome="strategy")
    assert run(stand_in.handle(BODY, "1", good)) in URLS
    after = figure("routecore_decisions_total", strategy=strategy, outcome="strategy")
    assert after == before + 1


def test_a_logic_that_is_not_given_the_body_routes_by_it_all_the_same(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    stand_in.start("roundrobin", CALLBACKS, URLS)

    async def several() -> set[str]:
        return {await stand_in.handle(BODY, str(n), good) for n in range(8)}

    assert len(run(several())) == 1


# Requests from their start to their end


def test_after_any_end_nothing_is_in_flight(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor

    async def refuses(_url: str) -> None:
        raise ConnectionError

    async def breaks(_url: str) -> None:
        raise RuntimeError

    async def hangs(_url: str) -> None:
        await asyncio.sleep(60)

    async def all_of_them() -> None:
        for backend in (good, refuses, breaks):
            await asyncio.gather(
                asyncio.create_task(stand_in.handle(BODY, "same-id", backend)),
                return_exceptions=True,
            )
        left = asyncio.create_task(stand_in.handle(BODY, "left", hangs))
        await asyncio.sleep(0.01)
        assert monitor.in_flight == 1
        left.cancel()  # the client left
        await asyncio.gather(left, return_exceptions=True)
        await asyncio.sleep(0)
        assert monitor.in_flight == 0

    gc.disable()
    try:
        run(all_of_them())
    finally:
        gc.enable()
    assert monitor.leases_expired == 0


def test_one_of_two_requests_with_the_same_id_may_fail(stand_in: Any) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    go = asyncio.Event()

    async def waits(_url: str) -> None:
        await go.wait()

    async def both() -> int:
        stays = asyncio.create_task(stand_in.handle(BODY, "id", waits))
        await asyncio.sleep(0)
        await asyncio.create_task(stand_in.handle(BODY, "id", good))
        await asyncio.sleep(0.01)
        between = monitor.in_flight
        go.set()
        await stays
        return between

    assert run(both()) == 1
    assert monitor.in_flight == 0


def test_a_failover_gives_the_load_of_the_failed_endpoint_back_at_once(stand_in: Any) -> None:
    app = stand_in.start(
        "prefixaware", CALLBACKS, URLS[:2], max_instance_failover_reroute_attempts=1
    )
    monitor = app.state.request_stats_monitor
    tried: list[str] = []

    async def first_fails(url: str) -> None:
        tried.append(url)
        if len(tried) == 1:
            raise ConnectionError
        stats = monitor.get_request_stats(1e9)
        assert stats[tried[0]].in_prefill_requests == 0
        assert stats[tried[1]].in_prefill_requests == 1

    assert run(stand_in.handle(BODY, "1", first_fails)) == tried[1] != tried[0]


def test_a_request_that_is_routed_without_a_task_ends_with_its_request(stand_in: Any) -> None:
    from routecore.integrations.production_stack.life import current

    app = stand_in.start("roundrobin", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    request = stand_in.Request()
    url = app.state.router.route_request(endpoints(*URLS[:1]), {}, {}, request)
    monitor.on_new_request(url, "1", 1.0)
    assert monitor.in_flight == 1
    assert current() is not None
    del request
    gc.collect()
    assert monitor.in_flight == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m", "input": "to embed"},
        {"model": "m", "input": ["a", "b"]},
        {"model": "m", "query": "q", "documents": ["d"]},
        {"model": "m", "prompt": [1, 2, 3]},
        {"model": "m", "prompt": ["a", "b"]},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user"}, 7, {"content": None}]},
        {"model": "m", "messages": [{"content": [{"type": "text", "text": "a"}, {"text": 3}]}]},
        {"model": "m", "messages": "text"},
        {"model": "m", "prompt": "\ud800"},
    ],
)
@pytest.mark.parametrize("logic", ["prefixaware", "session", "kvaware", "roundrobin"])
def test_no_body_fails_a_request(stand_in: Any, logic: str, body: Any) -> None:
    app = stand_in.start(logic, CALLBACKS, URLS, session_key="user")
    strategy = app.state.router.decision.strategy
    before = figure("routecore_decisions_total", strategy=strategy, outcome="fallback")
    assert run(stand_in.handle(body, "1", good)) in URLS
    after = figure("routecore_decisions_total", strategy=strategy, outcome="fallback")
    assert after == before
    # Without our monitor's stats the host's own way is gone; it takes any body too.
    route = app.state.router.route_request
    chosen = route(endpoints(*URLS), None, {}, stand_in.Request(), body)
    assert (chosen if isinstance(chosen, str) else run(chosen)) in URLS


def test_an_error_of_ours_routes_by_load_is_counted_and_logged_once_a_minute(
    stand_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    decision = app.state.router.decision
    monitor = app.state.request_stats_monitor
    monitor.on_new_request(URLS[0], "busy", time.time())

    class Broken:
        def route_request(self, *_: Any) -> str:
            raise RuntimeError("broken")

    decision.router = Broken()
    before = figure("routecore_decisions_total", outcome="fallback")
    urls = [run(stand_in.handle(BODY, str(n), good)) for n in range(5)]
    assert URLS[0] not in urls
    assert figure("routecore_decisions_total", outcome="fallback") == before + 5
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [w for w in warnings if "RuntimeError: broken" in w] == warnings
    assert len(warnings) == 1


def test_usage_is_read_from_answers_streamed_or_not(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    seen: list[Any] = []
    monitor = app.state.request_stats_monitor

    class Core:
        """Ours as it will be told of usage: before a request ends."""

        def on_usage(self, *told: Any) -> None:
            seen.append((told, monitor.in_flight))

        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

    core, monitor.core = monitor.core, Core()
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    usage["prompt_tokens_details"] = {"cached_tokens": 5}
    whole = json.dumps({"id": "1", "usage": usage}).encode()
    stream = b'data: {"usage": null}\n\ndata: ' + whole + b"\n\ndata: [DONE]\n\n"
    before = figure("routecore_actual_hit_tokens_total")
    for answer in (whole, stream, b"", b"no json", b"data: {", b'{"usage": 3}'):
        url = run(stand_in.handle(BODY, "1", good, answer))
        assert seen[-1] == ((url, "1", 9, 5, 2), 1) or answer not in (whole, stream)
        assert monitor.in_flight == 0
    assert len(seen) == 2
    assert figure("routecore_actual_hit_tokens_total") == before + 10


def test_requests_in_flight_are_a_metric(stand_in: Any) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor
    before = figure("routecore_in_flight_requests")
    monitor.on_new_request(URLS[0], "1", 1.0)
    assert figure("routecore_in_flight_requests") == before + 1
    monitor.on_request_failed(URLS[0], "1", 2.0)
    assert figure("routecore_in_flight_requests") == before


# Each logic


def test_sessions_are_where_the_hosts_ring_has_them(stand_in: Any) -> None:
    # Made with uhashring 2.3, HashRing() and add_node for each URL; then two removed.
    from routecore.integrations.production_stack.ring import SessionRing

    urls = [f"http://engine{n}:8000" for n in range(6)]
    ids = ["abc123", "", "user-7", "séance", "42", "x" * 300]
    ring = SessionRing()
    assert [urls.index(ring.owner(i, set(urls))) for i in ids] == [4, 5, 0, 4, 1, 0]
    left = {url for url in urls if url not in (urls[1], urls[5])}
    assert [urls.index(ring.owner(i, left)) for i in ids] == [4, 4, 0, 4, 4, 0]
    alone = SessionRing()
    assert [alone.owner(i, left) for i in ids] == [ring.owner(i, left) for i in ids]


def test_the_session_ring_forgets_endpoints_that_are_gone(stand_in: Any) -> None:
    from routecore.integrations.production_stack.ring import SessionRing

    ring = SessionRing()
    for n in range(600):
        ring.owner("s", {f"http://gone{n}", "http://stays"})
    assert len(ring._known) < 300
    assert len(ring._points) == 160 * len(ring._known)


def test_sessions_stay_and_other_requests_go_by_load(stand_in: Any) -> None:
    app = stand_in.start("session", CALLBACKS, URLS, session_key="user")
    assert len({run(stand_in.handle({"user": 7}, str(n), good)) for n in range(5)}) == 1
    monitor = app.state.request_stats_monitor
    for url in URLS[:3]:
        monitor.on_new_request(url, url, time.time())
    assert run(stand_in.handle({}, "1", good)) == URLS[3]


def test_prefixes_stay_together_while_load_allows(stand_in: Any) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)

    async def many() -> Counter[str]:
        tasks = [asyncio.create_task(stand_in.handle(BODY, str(n), good)) for n in range(40)]
        return Counter(await asyncio.gather(*tasks))

    assert len({run(stand_in.handle(BODY, str(n), good)) for n in range(5)}) == 1
    assert len(run(many())) == 4  # all at once: no endpoint gets the crowd


def test_another_hashtrie_is_asked_in_place_of_ours(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS, prefix_min_match_length=128)
    asked: list[Any] = []

    class Trie:
        async def longest_prefix_match(self, text: str, urls: set[str]) -> Any:
            return 128, {URLS[2]}

        async def insert(self, text: str, url: str) -> None:
            asked.append((text, url))

    app.state.router.hashtrie = Trie()
    assert run(stand_in.handle({"prompt": "p"}, "1", good)) == URLS[2]
    assert asked == [("p", URLS[2])]


def test_the_prompt_index_is_bounded_and_keeps_what_is_used(stand_in: Any) -> None:
    from routecore.integrations.production_stack.prompts import PromptIndex

    index = PromptIndex(max_chunks=8)
    index.add("a" * 256, URLS[0])
    for n in range(20):
        index.add(f"{n:0128d}", URLS[1])
        assert index.match("a" * 256 + "more", {URLS[0], URLS[1]}) == (256, {URLS[0]})
    assert len(index) == 8
    assert index.match(f"{0:0128d}", {URLS[1]}) == (0, {URLS[1]})
    assert index.match("a" * 256, {URLS[1]}) == (0, {URLS[1]})


def test_kvaware_says_what_it_does_without_events(
    stand_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.start("kvaware", CALLBACKS, URLS, session_key="user", lmcache_controller_port=9)
    said = [r.getMessage() for r in caplog.records if "no index of KV events" in r.getMessage()]
    assert len(said) == 1
    assert "does not start the LMCache controller" in said[0]


def test_a_pair_is_chosen_by_cache_and_load_and_counts_until_its_request_ends(
    stand_in: Any,
) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill_orchestrated", CALLBACKS, URLS, **flags)
    router, monitor = app.state.router, app.state.request_stats_monitor
    both = endpoints(*URLS[:2], label="p") + endpoints(*URLS[2:], label="d")
    go = asyncio.Event()

    async def asked() -> tuple[str, str]:
        prefill, decode = router._find_endpoints(both)
        pair = (router.select_prefill_endpoint(prefill), router.select_decode_endpoint(decode))
        await go.wait()
        return pair[0].url, pair[1].url

    async def two() -> list[tuple[str, str]]:
        tasks = [asyncio.create_task(asked()) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert monitor.in_flight == 4
        go.set()
        return await asyncio.gather(*tasks)

    pairs = run(two())
    assert {pair[1] for pair in pairs} == set(URLS[2:])
    assert monitor.in_flight == 0


def test_the_orchestrated_router_sees_the_prompt_through_the_middleware(stand_in: Any) -> None:
    from routecore.integrations.production_stack.disaggregated import BodyTap

    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill_orchestrated", CALLBACKS, URLS, **flags)
    chosen: list[str] = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        chosen.append(app.state.router.select_prefill_endpoint(endpoints(*URLS)).url)

    async def ask(text: str) -> None:
        raw = json.dumps({"prompt": text * 100}).encode()
        pieces = [
            {"type": "http.request", "body": raw[:50], "more_body": True},
            {"type": "http.request", "body": raw[50:]},
        ]

        async def receive() -> Any:
            return pieces.pop(0)

        await asyncio.create_task(BodyTap(host)({"type": "http"}, receive, None))

    async def all_of_them() -> None:
        for _ in range(4):
            await ask("same ")
        for n in range(12):
            await ask(f"other{n} ")

    run(all_of_them())
    assert len(set(chosen[:4])) == 1
    assert len(set(chosen[4:])) > 1


def test_halves_of_disaggregated_prefill_go_to_endpoints_of_their_label(stand_in: Any) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill", CALLBACKS, URLS, **flags)
    both = endpoints(*URLS[:2], label="p") + endpoints(*URLS[2:], label="d")
    request = stand_in.Request()

    def route(body: Any, of: list[Any]) -> str:
        return app.state.router.route_request(of, {}, {}, request, body)

    assert route({"max_tokens": 1}, both) in URLS[:2]
    assert route({"max_tokens": 9}, both) in URLS[2:]
    assert route({}, endpoints(*URLS[:1])) == URLS[0]


# Launcher


def launched(*arguments: str) -> str:
    code = (
        "import routecore.integrations.production_stack.__main__ as m, vllm_router.app as host\n"
        "host.main = lambda: print('HOST', sys.argv[1:])\n"
        f"m.main({[*arguments]!r})\n"
        "from routecore.integrations.production_stack import settings\n"
        "s = settings.load(); print(s.strategy, s.params, s.mode)\n"
    )
    return subprocess_says(code, STAND_INS)


def test_the_launcher_adds_to_the_hosts_flags_what_is_needed() -> None:
    said = launched("--port", "9", "--strategy", "least_connections", "--param", "ties=first")
    assert (
        f"['--port', '9', '--routing-logic', 'prefixaware', '--callbacks', '{CALLBACKS}']" in said
    )
    assert "least_connections {'ties': 'first'} active" in said


def test_the_launcher_leaves_the_users_own_flags_alone() -> None:
    said = launched("--callbacks=mine.callbacks", "--routing-logic", "session", "--mode", "shadow")
    assert "HOST ['--callbacks=mine.callbacks', '--routing-logic', 'session']\n" in said
    assert "None {} shadow" in said


def test_the_launcher_knows_loadaware_where_the_host_does_not() -> None:
    said = launched("--routing-logic", "loadaware")
    assert "'--routing-logic', 'prefixaware', " in said


def test_the_launcher_refuses_a_wrong_parameter_in_one_line() -> None:
    said = launched("--strategy", "random", "--param", "tie=first")
    assert said == "error: random takes no parameter 'tie'; valid: endpoint_weights, seed\n"


# Shadow mode


def test_in_the_shadow_the_host_chooses_and_we_are_recorded(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from routecore.integrations.shadow import summarise

    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor

    async def eight() -> list[str]:
        return [await stand_in.handle(BODY, str(n), good) for n in range(8)]

    assert run(eight()) == URLS * 2  # the host's own turns
    assert monitor.events[0] == ("new", URLS[0], "0")  # and its own monitor
    assert monitor.in_flight == 0
    app.state.router.close()
    summary = summarise([tmp_path / "routecore-shadow.jsonl"])
    assert (summary.requests, summary.agreement) == (8, 0.25)
    assert summary.busiest_share == {"host": 0.25, "ours": 1.0}
    # The first is new to everyone; the host shows the prompt to each of four once.
    assert summary.hit_rate == {"host": 0.5, "ours": 0.875}
    assert summary.latency_ms == {"host": None, "ours": None}


def test_in_the_shadow_an_error_of_ours_changes_nothing(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    monkeypatch.setenv("ROUTECORE_SHADOW_FILE", "/nowhere/at/all.jsonl")
    stand_in.start("roundrobin", CALLBACKS, URLS)
    before = figure("routecore_decisions_total", outcome="fallback")
    assert run(stand_in.handle(BODY, "1", good)) == URLS[0]
    assert figure("routecore_decisions_total", outcome="fallback") == before + 1
