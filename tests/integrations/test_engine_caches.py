"""Hosts that route by the engines' KV events: settings, endpoints that come and go, reloads."""

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import litellm_stand_in
import pytest
import ray_stand_in
import zmq
from kv_messages import stored
from kv_sockets import Sockets, wait
from production_stack_host import CALLBACKS, URLS, good, run
from routecore import RouteError
from routecore.demo.engine import Engine, toy_tokens
from routecore.demo.events import EventPublisher
from routecore.demo.runner import serve
from routecore.demo.scheduler import Scheduler
from routecore.integrations.shared import engine_caches
from routecore.integrations.shared.settings import Settings
from test_kv_tokens import SPECIAL, TEMPLATE, tokenizer

TOKENS = list(range(1, 257))
BODY = {"model": "m", "prompt": TOKENS}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sockets]]:
    """One engine's event sockets per URL; looks are not spared for a second."""
    monkeypatch.setattr(engine_caches, "_LOOK_SECONDS", 0.0)
    context = zmq.Context()
    made = [Sockets(context) for _ in URLS]
    yield made
    for engine in made:
        engine.close()
    context.term()


def named(engines: list[Sockets]) -> str:
    """The setting that names their addresses."""
    tables = [{"address": e.address, "replay": e.replay} for e in engines]
    return json.dumps(dict(zip(URLS, tables, strict=True)))


def tell(engine: Sockets, tokens: list[int] = TOKENS, block: int = 16) -> None:
    """The engine says that it holds these tokens."""
    engine.send(stored([*range(1, len(tokens) // block + 1)], None, tokens, block))


def heard(app: Any, url: str) -> bool:
    caches = app.state.router.decision.caches
    return bool(caches.index.matched(TOKENS, [url])[0][0])


def ask(stand_in: Any, number: int, body: Any = BODY) -> str:
    url: str = run(stand_in.handle(body, str(number), good))
    return url


@pytest.mark.parametrize("logic", ["kvaware", "prefixaware"])
def test_a_prompt_goes_where_the_engine_says_it_is(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, engines: list[Sockets], logic: str
) -> None:
    # The default would rather take an engine that has answered than 256 tokens of a cache.
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_cache")
    monkeypatch.setenv("ROUTECORE_KV_EVENTS", named(engines))
    app = stand_in.start(logic, CALLBACKS, URLS)
    ask(stand_in, 0, {"prompt": "something else"})
    wait(lambda: len(app.state.router.decision.caches._seen) == 4)
    tell(engines[2])
    wait(lambda: heard(app, URLS[2]))
    assert {ask(stand_in, n) for n in range(1, 6)} == {URLS[2]}
    app.state.router.decision.end()


def test_endpoints_come_into_hearing_and_leave_it(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, engines: list[Sockets]
) -> None:
    monkeypatch.setenv("ROUTECORE_KV_EVENTS", named(engines))
    app = stand_in.start("kvaware", CALLBACKS, URLS[:2])
    caches = app.state.router.decision.caches
    ask(stand_in, 0)
    wait(lambda: caches._seen.keys() == {*URLS[:2]})
    discovery = stand_in.service_discovery._global_service_discovery
    discovery.urls = URLS[1:3]
    ask(stand_in, 1)
    wait(lambda: caches._seen.keys() == {*URLS[:3]})  # one that is away may come back
    monkeypatch.setattr(engine_caches, "_GONE_SECONDS", 0.0)
    heard_of = caches._subscriber.status
    wait(lambda: ask(stand_in, 2) and heard_of().keys() == {*URLS[1:3]})
    caches.close()


def test_a_reload_keeps_what_was_heard_and_a_change_of_settings_stops_hearing(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, engines: list[Sockets]
) -> None:
    monkeypatch.setenv("ROUTECORE_KV_EVENTS", named(engines))
    app = stand_in.start("kvaware", CALLBACKS, URLS)
    ask(stand_in, 0)
    first = app.state.router.decision.caches
    wait(lambda: len(first._seen) == 4)
    stand_in.reload("kvaware", CALLBACKS, URLS)
    assert app.state.router.decision.caches is first
    assert not first._subscriber._closed
    monkeypatch.setenv("ROUTECORE_KV_REPLAY_PORT", "6557")
    stand_in.reload("kvaware", CALLBACKS, URLS)
    second = app.state.router.decision.caches
    assert second is not first
    wait(lambda: not first._subscriber._thread.is_alive())
    assert ask(stand_in, 1) in URLS
    second.close()


def test_text_is_tokenised_off_the_event_loop_once(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, engines: list[Sockets], tmp_path: Any
) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, **SPECIAL}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("ROUTECORE_KV_EVENTS", named(engines))
    monkeypatch.setenv("ROUTECORE_TOKENIZER", str(tmp_path))
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_cache")
    app = stand_in.start("kvaware", CALLBACKS, URLS)
    caches = app.state.router.decision.caches
    body = {"messages": [{"role": "user", "content": "the same long question " * 9}]}
    ids = list(caches.token_ids(body))
    threads: list[str] = []
    inner = caches._tokens.ids

    def watched(given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return inner(given)

    caches._tokens.ids = watched
    ask(stand_in, 0, {"prompt": [7]})  # what was sent somewhere would count there
    wait(lambda: len(caches._seen) == 4)
    tell(engines[3], ids[: len(ids) // 16 * 16])
    wait(lambda: caches.index.matched(ids, [URLS[3]])[0][0] > 0)
    threads.clear()
    assert {ask(stand_in, n, body) for n in range(1, 4)} == {URLS[3]}
    assert len(threads) == 3
    assert all(name.startswith("routecore-kv") for name in threads)
    caches.close()


def test_what_another_router_sent_to_the_demos_engines_is_known(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_caches, "_LOOK_SECONDS", 0.0)
    context: Any = zmq.Context()
    publishers = [EventPublisher(context) for _ in range(3)]
    engines = [Engine(speed=50.0, scheduler=Scheduler(log=p.log())) for p in publishers]
    text = "tell me of caches " * 40
    body = {"prompt": text, "max_tokens": 2, "prompt_token_ids": toy_tokens(text).tolist()}

    async def until(so: Any) -> None:
        while not so():
            await asyncio.sleep(0.01)

    async def served() -> None:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serve(e.app)) for e in engines]
            tables = [{"address": p.address, "replay": p.replay} for p in publishers]
            sources = json.dumps(dict(zip(urls, tables, strict=True)))
            monkeypatch.setenv("ROUTECORE_KV_EVENTS", sources)
            monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_cache")
            app = stand_in.start("kvaware", CALLBACKS, urls)
            caches = app.state.router.decision.caches
            stack.callback(caches.close)
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))

            async def ask(url: str) -> None:
                answer = await client.post(f"{url}/v1/completions", json=body)
                assert answer.status_code == 200

            await ask(urls[1])  # by another router
            await stand_in.handle({"prompt": [7]}, "0", good)
            held = caches.index.matched
            await until(lambda: held(body["prompt_token_ids"], [urls[1]])[0][0] > 64)
            for number in range(1, 4):
                assert await stand_in.handle(body, str(number), ask) == urls[1]
            assert engines[1].scheduler.hits > 0

    async def bounded() -> None:
        await asyncio.wait_for(served(), 20)

    try:
        run(bounded())
    finally:
        for publisher in publishers:
            publisher.close()
        context.term()


def test_the_port_rule_reads_hosts_and_the_named_ones_go_before_it() -> None:
    settings = Settings.of(
        {
            "kv_events": {"d0": "tcp://apart:7"},
            "kv_events_port": 5557,
            "kv_replay_port": 6557,
        }
    )

    def source(url: str, address: str) -> Any:
        return engine_caches._source(settings, url, address)

    assert source("u", "http://a:8000/v1").address == "tcp://a:5557"
    assert source("u", "http://a:8000/v1").replay == "tcp://a:6557"
    assert source("u", "http://[::1]:8000").address == "tcp://[::1]:5557"
    assert source("replica", "10.0.0.7").address == "tcp://10.0.0.7:5557"
    assert (source("d0", "").address, source("d0", "").replay) == (
        "tcp://apart:7",
        "tcp://apart:6557",
    )
    assert source("u", "") is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kv_events_port": 70_000}, "expected a port from 1 to 65535, got 70000"),
        ({"kv_events": {"a": "http://a:1"}}, "kv_events['a']: event address 'http://a:1'"),
        ({"kv_events": {"a": {"adress": "tcp://a:1"}}}, "kv_events['a']: unknown adress"),
        ({"kv_events_port": 5557, "tokenizer": "/nowhere"}, "tokenizer '/nowhere/tokenizer.json'"),
    ],
)
def test_a_wrong_kv_setting_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RouteError) as caught:
        engine_caches.engine_caches(Settings.of(given), engine_caches.logging.getLogger("x"))
    assert said in str(caught.value)


@pytest.mark.parametrize("strategy", ["prefix_cache", "least_connections"])
def test_what_cannot_be_heard_is_said_once_and_routing_goes_on(
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    strategy: str,
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.delitem(sys.modules, "routecore.kv_events.subscriber", raising=False)
    monkeypatch.setenv("ROUTECORE_STRATEGY", strategy)
    monkeypatch.setenv("ROUTECORE_KV_EVENTS_PORT", "5557")
    stand_in.start("prefixaware", CALLBACKS, URLS)
    assert {ask(stand_in, n) for n in range(3)} <= {*URLS}
    said = [r.getMessage() for r in caplog.records if "without KV events" in r.getMessage()]
    assert len(said) == 1
    why = {"prefix_cache": "pip install 'routecore[kv-events]'", "least_connections": "reads none"}
    assert why[strategy] in said[0]


def test_no_more_endpoints_are_heard_than_there_may_be(
    engines: list[Sockets], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_caches, "_MAX_ENDPOINTS", 2)
    settings = Settings.of({"kv_events": json.loads(named(engines))})
    caches = engine_caches.engine_caches(settings, engine_caches.logging.getLogger("x"))
    assert caches is not None

    async def several() -> None:
        for _ in range(5):
            caches.follow(lambda: dict(zip(URLS, URLS, strict=True)))
            await asyncio.sleep(0.05)

    run(several())
    wait(lambda: len(caches._seen) == 2)
    assert sum("too many" in r.getMessage() for r in caplog.records) == 1
    caches.close()
    caches.close()


def test_ray_replicas_are_heard_at_their_nodes_address(
    monkeypatch: pytest.MonkeyPatch, engines: list[Sockets]
) -> None:
    ray_stand_in.install(monkeypatch)
    ours = importlib.import_module("routecore.integrations.ray_serve")
    router = ours.RoutecoreRequestRouter(SimpleNamespace(name="deployment", app_name="app"))
    ports = {"kv_events_port": engines[0].port, "kv_replay_port": engines[0].replay_port}
    router.initialize_state(strategy="prefix_cache", load_factor=9, **ports)
    replicas: list[Any] = [ray_stand_in.Replica(f"r{at}") for at in range(3)]
    replicas[2]._replica_info = SimpleNamespace(node_ip="127.0.0.1")
    router.update_replicas(replicas)
    caches = router._fleet.caches

    def first(number: int, prompt: Any = TOKENS) -> str:
        pending = ray_stand_in.Pending(number, {"prompt": prompt})
        ranks = run(router.choose_replicas(replicas, pending))
        return str(ranks[0][0].replica_id.unique_id)

    tell(engines[0])  # before anybody listens: the replay gives it
    first(0, [7])
    wait(lambda: caches._seen)
    tell(engines[0], TOKENS[:16])
    url = replicas[2].replica_id.to_full_id_str()
    wait(lambda: caches.index.matched(TOKENS, [url])[0][0] > 64)
    assert {first(number) for number in range(1, 4)} == {"r2"}
    caches.close()


def test_litellm_deployments_are_heard_at_their_bases_address(
    monkeypatch: pytest.MonkeyPatch, engines: list[Sockets]
) -> None:
    litellm = litellm_stand_in.install(monkeypatch)
    module = importlib.import_module("routecore.integrations.litellm")
    ports = {"kv_events_port": engines[0].port, "kv_replay_port": engines[0].replay_port}
    callback = module.RoutecoreCallback(strategy="prefix_cache", params={"load_factor": 9}, **ports)
    litellm.callbacks.append(callback)
    found = litellm_stand_in.deployments(3)
    found[1]["litellm_params"]["api_base"] = "http://127.0.0.1:8000/v1"

    def chosen(prompt: Any = TOKENS) -> str:
        kept = run(callback.async_filter_deployments("m", found, None, {"prompt": prompt}))
        return str(kept[0]["model_info"]["id"])

    tell(engines[0])
    chosen([7])
    caches = callback._groups["m"].fleet.caches
    wait(lambda: caches._seen)
    tell(engines[0], TOKENS[:16])
    wait(lambda: caches.index.matched(TOKENS, ["d1"])[0][0] > 64)
    assert {chosen() for _ in range(3)} == {"d1"}
    caches.close()
