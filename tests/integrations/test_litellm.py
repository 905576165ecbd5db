"""LiteLLM itself, SDK router and proxy, over the demo's engines."""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from routecore.demo.engine import Engine
from routecore.demo.runner import serve

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its prices need no network then
pytest.importorskip("litellm", reason="LiteLLM is not installed: make test-hosts")

import litellm
from litellm.integrations.custom_logger import CustomLogger
from routecore.integrations.litellm import RoutecoreCallback
from routecore.integrations.shared.shadow import summarise

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.litellm,
    # LiteLLM's own deprecations and open connections are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

KEY = f"sk-{secrets.token_hex(32)}"  # the proxy starts with none but a good one
AUTH = {"authorization": f"Bearer {KEY}"}
NOWHERE = "http://127.0.0.1:9/v1"


def chat(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"conversation {i} " + f"{i:03d}" * 600}]


def group(*bases: str, name: str = "m", **params: Any) -> list[dict[str, Any]]:
    return [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/demo", "api_base": base, "api_key": "x", **params},
            "model_info": {"id": f"{name}{i}"},
        }
        for i, base in enumerate(bases)
    ]


@contextlib.asynccontextmanager
async def fleet(n: int) -> AsyncIterator[tuple[list[Engine], list[str]]]:
    engines = [Engine(speed=50) for _ in range(n)]
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serve(e.app)) + "/v1" for e in engines]
        yield engines, urls


@pytest.fixture
def callback() -> Iterator[Callable[..., RoutecoreCallback]]:
    def make(**given: Any) -> RoutecoreCallback:
        made = RoutecoreCallback(**given)
        litellm.callbacks.append(made)
        return made

    yield make
    for name in ("callbacks", "input_callback", "success_callback", "failure_callback",
                 "_async_success_callback", "_async_failure_callback"):  # fmt: skip
        getattr(litellm, name).clear()


async def settled(callback: RoutecoreCallback, name: str = "m") -> int:
    """Requests in flight once LiteLLM's queue of log events has run dry."""
    monitor = callback._groups[name].fleet.monitor  # type: ignore[union-attr]
    deadline = time.monotonic() + 30
    while monitor.in_flight and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return monitor.in_flight


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_conversations_find_their_cache_streamed_or_not(callback: Any) -> None:
    ours = callback(strategy="prefix_affinity", params={"load_factor": 8.0})

    async def work() -> None:
        async with fleet(3) as (engines, urls):
            router = litellm.Router(model_list=group(*urls))
            for turn in range(3):
                for i in range(6):
                    answer = await router.acompletion("m", chat(i), max_tokens=4)
                    cached = answer.usage.prompt_tokens_details.cached_tokens
                    assert (cached > 300) == (turn > 0)
                    parts = await router.acompletion("m", chat(i), max_tokens=4, stream=True)
                    assert [part async for part in parts]
            assert await settled(ours) == 0
            # Each conversation was computed once, wherever it was; and they spread.
            assert sum(e.scheduler.queries for e in engines) > 0
            assert sum(1 for e in engines if e.scheduler.queries) > 1
            stats = ours._groups["m"].fleet.monitor.get_request_stats(time.time())
            assert sum(one.finished_requests for one in stats.values()) == 36
            assert all(one.ttft > 0 for one in stats.values())
            assert ours._groups["m"].fleet.faults == 0

    run(work)


def test_a_burst_spreads_by_requests_in_flight(callback: Any) -> None:
    ours = callback(strategy="least_connections")

    async def work() -> None:
        async with fleet(4) as (engines, urls):
            router = litellm.Router(model_list=group(*urls))
            asked = (router.acompletion("m", chat(0), max_tokens=8) for _ in range(40))
            await asyncio.gather(*asked)
            assert await settled(ours) == 0
            prompts = [e.scheduler.queries for e in engines]
            assert max(prompts) <= 1.5 * min(prompts)

    run(work)


def test_a_retry_goes_elsewhere_and_failures_leave_the_load(callback: Any) -> None:
    ours = callback(strategy="prefix_affinity", params={"load_factor": 100.0})

    async def work() -> None:
        async with fleet(1) as (_, urls):
            dead_and_alive = group(NOWHERE, *urls)
            # No cooldown, so that every conversation whose home is dead must be retried.
            router = litellm.Router(
                dead_and_alive, num_retries=1, retry_after=0, disable_cooldowns=True
            )
            for i in range(12):
                await router.acompletion("m", chat(i), max_tokens=2)
            assert await settled(ours) == 0
            stats = ours._groups["m"].fleet.monitor.get_request_stats(time.time())
            assert stats["m1"].finished_requests == 12
            assert stats["m0"].finished_requests == 0
            assert stats["m0"].qps > 0  # some homes were there

    run(work)


def test_cooldowns_and_fallback_groups_go_on_working(callback: Any) -> None:
    ours = callback(strategy="round_robin")

    async def work() -> None:
        async with fleet(1) as (_, urls):
            router = litellm.Router(
                group(NOWHERE, NOWHERE, name="bad") + group(*urls),
                fallbacks=[{"bad": ["m"]}],
                num_retries=0,
                allowed_fails=0,
                cooldown_time=60,
            )
            for _ in range(4):
                await router.acompletion("bad", chat(0), max_tokens=2)
            assert await settled(ours) == 0
            assert await settled(ours, "bad") == 0

    run(work)


def test_order_and_tags_hold(callback: Any) -> None:
    callback(strategy="round_robin")

    async def work() -> None:
        async with fleet(2) as (engines, urls):
            models = group(urls[0], name="o", order=1) + group(urls[1], name="o", order=2)
            models[1]["model_info"] = {"id": "o1"}
            models += group(urls[0], name="t", tags=["a"])
            models += [{**group(urls[1], name="t", tags=["b"])[0], "model_info": {"id": "t1"}}]
            router = litellm.Router(models, enable_tag_filtering=True)
            for _ in range(6):
                await router.acompletion("o", chat(0), max_tokens=2)
            assert engines[1].scheduler.queries == 0
            engines[0].reset()
            for _ in range(6):
                await router.acompletion("t", chat(0), max_tokens=2, metadata={"tags": ["b"]})
            assert engines[0].scheduler.queries == 0
            assert engines[1].scheduler.queries > 0

    run(work)


def test_a_filter_registered_later_has_its_say(callback: Any) -> None:
    ours = callback(strategy="round_robin")

    class Only(CustomLogger):
        async def async_filter_deployments(
            self, model: str, healthy_deployments: list[Any], *_args: Any, **_kwargs: Any
        ) -> list[Any]:
            return [d for d in healthy_deployments if d["model_info"]["id"] == "m1"]

    async def work() -> None:
        async with fleet(3) as (engines, urls):
            router = litellm.Router(group(*urls))
            litellm.callbacks.append(Only())
            for _ in range(6):
                await router.acompletion("m", chat(0), max_tokens=2)
            assert [bool(e.scheduler.queries) for e in engines] == [False, True, False]
            assert litellm.callbacks[-1] is ours
            assert await settled(ours) == 0

    run(work)


def test_an_abandoned_stream_leaves_the_load_after_its_lease(callback: Any) -> None:
    ours = callback(strategy="least_connections", lease_timeout=5.0)

    async def work() -> None:
        async with fleet(1) as (_, urls):
            router = litellm.Router(group(*urls))
            parts = await router.acompletion("m", chat(0), max_tokens=500, stream=True)
            async for _ in parts:
                break
            monitor = ours._groups["m"].fleet.monitor
            assert monitor.in_flight == 1
            monitor.get_request_stats(time.time() + 6.0)
            assert (monitor.in_flight, monitor.leases_expired) == (0, 1)

    run(work)


class Held:
    """An engine's application whose answers stop on their way until they are let go.

    Args:
        app: The engine's.
        after: Pieces of each answer that come through.
    """

    def __init__(self, app: Any, after: int) -> None:
        self._app, self._after = app, after
        self.go = asyncio.Event()
        self.waiting = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pieces = 0

        async def held(message: Any) -> None:
            nonlocal pieces
            if message["type"] == "http.response.body":
                if pieces == self._after:
                    self.waiting += 1
                    await self.go.wait()
                pieces += 1
            await send(message)

        await self._app(scope, receive, held)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_call_leaves_the_load_when_it_is_cancelled(callback: Any, stream: bool) -> None:
    ours = callback(strategy="least_connections")

    async def work() -> None:
        engine = Held(Engine(speed=50).app, 1 if stream else 0)
        async with serve(engine) as url:
            router = litellm.Router(group(url + "/v1"), num_retries=0)

            async def read() -> None:
                answer = await router.acompletion("m", chat(1), max_tokens=500, stream=stream)
                async for _ in answer if stream else ():
                    pass

            calls = [asyncio.create_task(read()) for _ in range(3)]
            deadline = time.monotonic() + 30
            while engine.waiting < 3 and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            monitor = ours._groups["m"].fleet.monitor
            assert monitor.in_flight == 3
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
            assert await settled(ours) == 0
            assert (monitor.leases_expired, monitor.standing("m0")) == (0, None)
            engine.go.set()

    run(work)


def test_a_dead_deployment_gets_probes_only_and_cooldowns_agree(callback: Any) -> None:
    ours = callback(strategy="least_connections")

    async def work() -> None:
        async with fleet(1) as (_, urls):
            for cools in (False, True):
                name = f"m{cools}"
                router = litellm.Router(
                    group(NOWHERE, *urls, name=name),
                    num_retries=0,
                    disable_cooldowns=not cools,
                    allowed_fails=0,
                    cooldown_time=0.2,
                )
                failed = 0
                for n in range(30):
                    try:
                        await router.acompletion(name, chat(n), max_tokens=2)
                    except litellm.InternalServerError:
                        failed += 1
                assert 1 <= failed <= 4
                assert await settled(ours, name) == 0
                standing = ours._groups[name].fleet.monitor.standing(f"{name}0")
                assert cools or standing.reason == "connect"

    run(work)


def test_a_failing_strategy_fails_no_request(callback: Any) -> None:
    ours = callback(strategy="round_robin")

    async def work() -> None:
        async with fleet(2) as (_, urls):
            router = litellm.Router(group(*urls))
            await router.acompletion("m", chat(0), max_tokens=2)

            def broken(*_args: Any) -> str:
                raise ZeroDivisionError("boom")

            ours._groups["m"].fleet.router.route_request = broken
            for _ in range(4):
                await router.acompletion("m", chat(0), max_tokens=2)
            assert ours._groups["m"].fleet.faults == 4

    run(work)


def test_shadow_mode_changes_nothing_and_records(callback: Any, tmp_path: Path) -> None:
    path = tmp_path / "shadow.jsonl"
    ours = callback(strategy="expected_latency", mode="shadow", shadow_file=str(path))

    async def work() -> None:
        async with fleet(2) as (_, urls):
            router = litellm.Router(group(*urls))
            for _ in range(12):
                await router.acompletion("m", chat(0), max_tokens=2)
            ours._groups["m"].fleet.shadow.close()
            found = summarise([path])
            assert found.requests == 12
            assert found.hit_rate["ours"] > 0.8
            assert found.hit_rate["host"] is not None and found.latency_ms["ours"] is not None
            assert found.took_ms > 0
            assert await settled(ours) == 0

    run(work)


# Prompts of some 450 tokens, of which an engine's cache has room for one.
HOLD: dict[str, Any] = {
    "strategy": "expected_latency",
    "params": {"kv_tokens": 1000, "seed": 1},
    "hold": True,
}


async def until(happened: Callable[[], Awaitable[object]], said: str) -> None:
    deadline = time.monotonic() + 60
    while not await happened():
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_with_a_hold_calls_wait_may_leave_and_are_turned_away(
    callback: Any, stream: bool, size: int
) -> None:
    """LiteLLM's own retries, on by default, do not keep who is turned away."""
    ours = callback(**HOLD, hold_limits={"max_requests": 2})

    async def work() -> None:
        engine = Held(Engine(speed=50).app, 0)
        async with serve(engine) as url:
            router = litellm.Router(group(*[url + "/v1"] * size))

            async def ask(number: int) -> None:
                answer = await router.acompletion("m", chat(number), max_tokens=4, stream=stream)
                if stream:
                    assert [part async for part in answer]

            async def asked(count: int) -> bool:
                return engine.waiting == count

            async def held(count: int) -> bool:
                return len(ours.held("m")) == count

            calls = []
            for n in range(size):
                calls.append(asyncio.create_task(ask(n)))
                await until(lambda n=n: asked(n + 1), "an engine was not asked")  # type: ignore[misc]
            calls += [asyncio.create_task(ask(size + n)) for n in range(2)]
            await until(lambda: held(2), "they do not wait")
            for ahead, one in enumerate(ours.held("m")):
                assert one.ahead == ahead and one.waits is not None and one.waits.waiting == 2
                assert one.waits.url in [f"m{n}" for n in range(size)]
            with pytest.raises(litellm.RateLimitError, match="too many requests wait") as refused:
                await asyncio.wait_for(ask(9), 30)
            assert refused.value.status_code == 429
            assert int(refused.value.response.headers["retry-after"]) >= 1
            hold = ours._groups["m"].fleet.router.hold
            assert hold.counts.rejected["requests"] == 1, "it was tried again"
            leaves = calls.pop()
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            assert len(ours.held("m")) == 1 and hold.counts.left == 1
            engine.go.set()
            await asyncio.gather(*calls)
            assert await settled(ours) == 0
            assert (ours.held("m"), hold.counts.waiting, hold.counts.held) == ((), 0, 1)
            assert hold.counts.admitted == size + 1 and ours._groups["m"].fleet.faults == 0
            standings = [ours._groups["m"].fleet.monitor.standing(f"m{n}") for n in range(size)]
            assert standings == [None] * size
            await ask(9)  # LiteLLM has put no deployment aside for those who were turned away

    run(work)


def test_with_a_hold_who_waits_for_too_long_learns_when_to_come_again(callback: Any) -> None:
    ours = callback(**HOLD, hold_limits={"max_wait_s": 0.2})

    async def work() -> None:
        engine = Held(Engine(speed=50).app, 0)
        async with serve(engine) as url:
            router = litellm.Router(group(url + "/v1"))
            first = asyncio.create_task(router.acompletion("m", chat(0), max_tokens=4))

            async def asked() -> bool:
                return engine.waiting == 1

            await until(asked, "the engine was not asked")
            with pytest.raises(litellm.RateLimitError, match="for as long as it may") as refused:
                await router.acompletion("m", chat(1), max_tokens=4)
            assert int(refused.value.response.headers["retry-after"]) >= 1
            engine.go.set()
            await first
            assert await settled(ours) == 0
            counts = ours._groups["m"].fleet.router.hold.counts
            assert counts.rejected == {"requests": 0, "tokens": 0, "seconds": 1}

    run(work)


@contextlib.contextmanager
def proxy(tmp_path: Path, config: dict[str, Any]) -> Iterator[str]:
    """The proxy on a free port of this machine, with its own command."""
    port = free_port()
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    log = (tmp_path / "proxy.log").open("wb")
    command = Path(sys.executable).with_name("litellm")
    options = ("--config", str(path), "--port", str(port), "--host", "127.0.0.1")
    process = subprocess.Popen([command, *options], stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health/liveliness").status_code == 200:
                    break
            assert process.poll() is None, (tmp_path / "proxy.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "proxy.log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def test_the_proxy_routes_by_configuration_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with fleet(3) as (engines, urls):
            config = {
                "model_list": group(*urls, NOWHERE),
                "litellm_settings": {
                    "callbacks": ["prometheus", "routecore.integrations.litellm.callback"],
                    "routecore_params": {
                        "strategy": "prefix_affinity",
                        "params": {"load_factor": 8.0},
                    },
                    "num_retries": 2,
                },
                "router_settings": {"disable_cooldowns": True},
                "general_settings": {"master_key": KEY},
            }

            def clients(url: str) -> str:
                with httpx.Client(base_url=url, timeout=30, headers=AUTH) as client:
                    for turn in range(3):
                        for i in range(8):
                            body = {"model": "m", "messages": chat(i), "max_tokens": 4}
                            answer = client.post("/v1/chat/completions", json=body)
                            assert answer.status_code == 200, answer.text
                            details = answer.json()["usage"]["prompt_tokens_details"]
                            assert (details["cached_tokens"] > 300) == (turn > 0)
                            body["stream"] = True
                            with client.stream("POST", "/v1/chat/completions", json=body) as parts:
                                text = "".join(parts.iter_text())
                            assert text.rstrip().endswith("data: [DONE]")
                    time.sleep(1.0)  # the queue of log events
                    return client.get("/metrics/").text

            def outside() -> str:
                with proxy(tmp_path, config) as url:
                    return clients(url)

            metrics = await asyncio.to_thread(outside)
            assert sum(1 for e in engines if e.scheduler.queries) > 1
            label = 'host="litellm",outcome="strategy",strategy="prefix_affinity"'
            decisions = figure(metrics, f"routecore_decisions_total{{{label}}}")
            assert decisions >= 48  # retries decide again
            assert figure(metrics, "routecore_in_flight_requests") == 0
            hits = 'routecore_actual_hit_tokens_total{host="litellm",strategy="prefix_affinity"}'
            assert figure(metrics, hits) > 40 * 300

    run(work)
    log = (tmp_path / "proxy.log").read_text()
    assert "Traceback" not in log, log


# What docs/hold.md shows: beside the proxy's configuration, and one of its callbacks.
LOOK = """\
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import app
from routecore.integrations.litellm import callback


@app.get("/held/{group}")
def held(group: str) -> list[str]:
    return [str(one) for one in callback.held(group)]


page = CustomLogger()
"""


def test_the_proxys_clients_wait_leave_and_are_turned_away(tmp_path: Path) -> None:
    assert LOOK in (Path(__file__).parents[2] / "docs/hold.md").read_text()
    (tmp_path / "look.py").write_text(LOOK)
    ours = ["prometheus", "routecore.integrations.litellm.callback", "look.page"]

    async def work() -> None:
        engine = Held(Engine(speed=50).app, 0)
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(serve(engine))
            config = {
                "model_list": group(url + "/v1"),
                "litellm_settings": {
                    "callbacks": ours,
                    "routecore_params": {**HOLD, "hold_limits": {"max_requests": 2}},
                },
                # Else LiteLLM goes on for clients that have left.
                "general_settings": {"master_key": KEY, "cancel_on_disconnect": True},
            }
            began = proxy(tmp_path, config)
            at = await asyncio.to_thread(began.__enter__)
            stack.push_async_callback(asyncio.to_thread, began.__exit__, None, None, None)
            stack.callback(engine.go.set)  # the proxy ends with its requests
            one = httpx.AsyncClient(base_url=at, timeout=60, headers=AUTH)
            client = await stack.enter_async_context(one)

            def ask(number: int, **more: Any) -> asyncio.Task[httpx.Response]:
                body = {"model": "m", "messages": chat(number), "max_tokens": 4, **more}
                return asyncio.create_task(client.post("/v1/chat/completions", json=body))

            async def asked() -> bool:
                text = (await client.get("/metrics/")).text
                return "\nroutecore_in_flight_requests 1.0\n" in text

            async def metrics(name: str) -> float:
                return figure((await client.get("/metrics/")).text, name)

            async def held(count: int) -> bool:
                lines = (await client.get("/held/m")).json()
                assert all("waits for room at m0" in line for line in lines), lines
                return len(lines) == count

            first = ask(0)
            await until(asked, "the engine was not asked")
            waits, leaves = ask(1), ask(2, stream=True)
            await until(lambda: held(2), "they do not wait")
            labels = 'host="litellm",strategy="expected_latency"'
            assert await metrics(f"routecore_waiting_requests{{{labels}}}") == 2
            refused = await ask(3)
            assert refused.status_code == 429, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert "too many requests wait" in refused.text
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            await until(lambda: held(1), "who left still waits")
            engine.go.set()
            assert [(await one).status_code for one in (first, waits)] == [200, 200]

            async def idle() -> bool:
                return (await metrics("routecore_in_flight_requests")) == 0

            await until(idle, "something is left")
            assert await held(0)
            assert await metrics(f"routecore_waited_seconds_count{{{labels}}}") == 2
            reason = 'host="litellm",reason="requests",strategy="expected_latency"'
            assert await metrics(f"routecore_rejected_requests_total{{{reason}}}") == 1

    run(work)


def figure(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith(f"{name} ")]
    assert lines, [line for line in metrics.splitlines() if "routecore" in line]
    return float(lines[0].rpartition(" ")[2])
