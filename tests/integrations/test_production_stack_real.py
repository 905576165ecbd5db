"""End to end: production-stack's own router, unmodified, before the demo's engines."""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ports import free_port
from production_stack_host import real_host
from routecore.demo.engine import Engine
from routecore.demo.scheduler import Scheduler
from routecore.demo.serving import serve
from routecore.integrations.shared.shadow import summarise

pytestmark = [
    pytest.mark.production_stack,
    pytest.mark.skipif(not real_host(), reason="production-stack's router is not installed"),
]

CALLBACKS = ("--callbacks", "routecore.integrations.production_stack.callbacks")
HOST = ("-m", "vllm_router.app", *CALLBACKS)
LAUNCHER = ("-m", "routecore.integrations.production_stack")


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


class Router:
    """A router process and a client of it."""

    def __init__(self, url: str, client: aiohttp.ClientSession, log: Path) -> None:
        self.url, self._client, self._log = url, client, log

    async def post(self, path: str, **options: Any) -> tuple[int, bytes]:
        async with self._client.post(self.url + path, **options) as answer:
            return answer.status, await answer.read()

    async def get(self, path: str) -> bytes:
        async with self._client.get(self.url + path) as answer:
            return await answer.read()

    async def chat(self, text: str, **more: Any) -> int:
        status, _ = await self.post("/v1/chat/completions", json=chat(text, **more))
        return status

    async def headers(self, path: str, **options: Any) -> tuple[int, Mapping[str, str]]:
        async with self._client.post(self.url + path, **options) as answer:
            await answer.read()
            return answer.status, answer.headers

    async def metric(self, name: str, *labels: str) -> float:
        async with self._client.get(self.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [line for line in lines if line.startswith(name) and all(x in line for x in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    async def until(self, name: str, value: float) -> None:
        for _ in range(600):
            if await self.metric(name) == value:
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"{name} is {await self.metric(name)}, not {value}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextlib.asynccontextmanager
async def started(
    tmp_path: Path, urls: list[str], *flags: str, command: tuple[str, ...] = HOST, **env: str
) -> AsyncIterator[Router]:
    port = free_port()
    log = tmp_path / "router.log"
    arguments = (
        *command,
        *("--host", "127.0.0.1", "--port", str(port), "--service-discovery", "static"),
        *("--static-backends", ",".join(urls), "--static-models", ",".join(["m"] * len(urls))),
        *flags,
    )
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
            env={**os.environ, **env},
        )
    one_each = aiohttp.TCPConnector(force_close=True)  # the host closes after a 500
    async with aiohttp.ClientSession(connector=one_each) as client:
        router = Router(f"http://127.0.0.1:{port}", client, log)
        try:
            for _ in range(300):
                if process.returncode is not None:
                    break
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(router.url + "/health"):
                        break
                await asyncio.sleep(0.1)
            yield router
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def fleet(count: int) -> AsyncIterator[tuple[list[Engine], list[str]]]:
    engines = [Engine(model="m", speed=50.0) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        yield engines, [await stack.enter_async_context(serve(e.app)) for e in engines]


def served(engines: list[Engine]) -> list[int]:
    """Prompt tokens that each engine has looked up in its cache."""
    return [engine.scheduler.queries for engine in engines]


def test_a_prompt_stays_with_its_engine_and_all_ends_are_seen(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            fleet(3) as (engines, urls),
            started(tmp_path, urls, "--routing-logic", "prefixaware") as router,
        ):
            text = "".join(f"{n:05d}" for n in range(400))
            for stream in (False, True) * 3:
                assert await router.chat(text, stream=stream, max_tokens=4) == 200
            assert sorted(served(engines))[:2] == [0, 0]
            assert "routing logic prefixaware, strategy" in router.log()
            await router.until("vllm:num_requests_running", 0)
            assert await router.metric("routecore_decisions_total", '"strategy"') == 6
            assert await router.metric("routecore_decision_seconds_count") == 6
            assert await router.metric("routecore_actual_hit_tokens_total") > 0
            assert await router.metric("routecore_in_flight_requests") == 0

    asyncio.run(test())


def test_an_engine_that_is_sent_to_sleep_is_forgotten(tmp_path: Path) -> None:
    predicted = "routecore_predicted_hit_tokens_total"

    async def test() -> None:
        async with (
            fleet(2) as (_, urls),
            started(tmp_path, urls, "--routing-logic", "prefixaware") as router,
        ):
            text = "".join(f"{n:05d}" for n in range(400))

            async def ask() -> float:
                assert await router.chat(text, max_tokens=4) == 200
                await router.until("routecore_in_flight_requests", 0)
                return await router.metric(predicted)

            seen = [await ask() for _ in range(3)]
            assert 0 == seen[0] < seen[1] < seen[2]
            for engine in json.loads(await router.get("/engines")):
                # These engines know no sleep, so that the host's request of them fails; that it
                # was asked for is enough.
                await router.post(f"/sleep?id={engine['engine_id']}")
            assert await ask() == seen[2]
            assert await ask() > seen[2]
            assert "/sleep was not understood" not in router.log()

    asyncio.run(test())


def test_a_prompt_stays_with_a_data_parallel_rank(tmp_path: Path) -> None:
    async def test() -> None:
        engine = Engine(model="m", speed=50.0, more=(Scheduler(), Scheduler()))
        flags = ("--routing-logic", "prefixaware")
        ranks = {"ROUTECORE_DATA_PARALLEL_RANKS": "3"}
        async with (
            serve(engine.app) as url,
            started(tmp_path, [url], *flags, **ranks) as router,
        ):
            text = "".join(f"{n:05d}" for n in range(400))
            for stream in (False, True) * 3:
                assert await router.chat(text, stream=stream, max_tokens=4) == 200
            queries = sorted(rank.queries for rank in engine.ranks)
            assert queries[:2] == [0, 0]
            for n in range(30):
                assert await router.chat(f"{n} " * 300, max_tokens=4) == 200
            assert all(rank.queries for rank in engine.ranks)
            await router.until("routecore_in_flight_requests", 0)
            assert await router.metric("routecore_decisions_total", '"fallback"') == 0

    asyncio.run(test())


def test_no_kind_of_request_fails_in_the_router(tmp_path: Path) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"model": "m", "input": ["a", "b"]}),
        ("/v1/rerank", {"model": "m", "query": "q", "documents": ["d"]}),
        ("/v1/responses", {"model": "m", "input": "text"}),
        ("/v1/completions", {"model": "m", "prompt": [1, 2, 3]}),
        ("/v1/completions", {"model": "m", "prompt": ["a", "b"]}),
        ("/v1/completions", {"model": "m"}),
        ("/v1/chat/completions", {"model": "m", "messages": []}),
    ]

    async def test() -> None:
        async with (
            fleet(2) as (_, urls),
            started(tmp_path, urls, "--routing-logic", "prefixaware") as router,
        ):
            for path, body in bodies:
                status, answer = await router.post(path, json=body)
                assert status in (200, 404), (path, answer)  # 404: the demo's engines have no such
            form = aiohttp.FormData({"model": "m"})
            form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
            status, answer = await router.post("/v1/audio/transcriptions", data=form)
            assert b"non-JSON response" in answer, (status, answer)  # the engine's 404, relayed
            await router.until("vllm:num_requests_running", 0)
            assert await router.metric("routecore_decisions_total", '"fallback"') == 0

    asyncio.run(test())


def test_failures_and_clients_that_leave_take_their_load_along(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet(2) as (_, urls):
            dead = f"http://127.0.0.1:{free_port()}"
            flags = ("--routing-logic", "prefixaware")
            async with started(tmp_path, [*urls, dead], *flags) as router:
                codes = Counter([await router.chat(f"{n} " * 300) for n in range(24)])
                assert codes[500] > 0
                assert codes[200] > 0
                await router.until("vllm:num_requests_running", 0)
                leaving = [
                    asyncio.create_task(router.chat(f"{n}", max_tokens=4096, stream=True))
                    for n in range(8)
                ]
                async with asyncio.timeout(30):
                    while not await router.metric("routecore_in_flight_requests"):
                        await asyncio.sleep(0.05)
                for task in leaving:
                    task.cancel()
                await asyncio.gather(*leaving, return_exceptions=True)
                await router.until("routecore_in_flight_requests", 0)
                assert await router.metric("routecore_leases_expired_total") == 0

    asyncio.run(test())


def test_a_failover_reaches_a_live_engine_and_clears_the_dead_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet(1) as (_, urls):
            dead = f"http://127.0.0.1:{free_port()}"
            flags = ("--max-instance-failover-reroute-attempts", "1")
            async with started(
                tmp_path, [*urls, dead], "--routing-logic", "prefixaware", *flags
            ) as router:
                codes = Counter([await router.chat(f"{n} " * 300) for n in range(24)])
                assert codes == {200: 24}
                assert "attempt 2/2" in router.log()
                await router.until("vllm:num_requests_running", 0)

    asyncio.run(test())


def test_a_full_engine_lets_requests_wait_and_turns_away_who_is_too_many(tmp_path: Path) -> None:
    env = {
        "ROUTECORE_STRATEGY": "expected_latency",
        "ROUTECORE_HOLD": "true",
        "ROUTECORE_HOLD_LIMITS": "max_requests=1,room=0.05",
    }

    async def test() -> None:
        async with (
            fleet(1) as (_, urls),
            started(tmp_path, urls, "--routing-logic", "prefixaware", **env) as router,
        ):

            def ask(n: int) -> asyncio.Task[tuple[int, Mapping[str, str]]]:
                body = chat(f"{n:05d} " * 25_000, max_tokens=2_000)
                return asyncio.create_task(router.headers("/v1/chat/completions", json=body))

            first = ask(1)
            await router.until("routecore_in_flight_requests", 1)
            second = ask(2)
            await router.until("routecore_waiting_requests", 1)
            status, headers = await ask(3)
            assert status == 429, router.log()
            assert int(headers["Retry-After"]) >= 1
            assert [(await first)[0], (await second)[0]] == [200, 200]
            await router.until("routecore_in_flight_requests", 0)
            assert await router.metric("routecore_waiting_requests") == 0
            assert await router.metric("routecore_waited_seconds_count") == 2
            assert await router.metric("routecore_waited_seconds_sum") > 0
            assert await router.metric("routecore_rejected_requests_total", '"requests"') == 1
            assert await router.metric("routecore_decisions_total", '"fallback"') == 0

    asyncio.run(test())


# What docs/hold.md shows: the host, started with a page more.
LOOK = """\
import vllm_router.app as host


@host.app.get("/held")
def held() -> list[str]:
    return [str(one) for one in host.app.state.router.held()]


host.main()
"""


class Stopped:
    """An engine's application that answers completions once it is let go."""

    def __init__(self, app: Any) -> None:
        self._app, self.go = app, asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").endswith("/completions"):
            await self.go.wait()
        await self._app(scope, receive, send)


def test_who_waits_is_shown_until_they_went_left_or_waited_for_too_long(tmp_path: Path) -> None:
    assert LOOK in (Path(__file__).parents[2] / "docs/hold.md").read_text()
    (tmp_path / "look.py").write_text(LOOK)
    env = {
        "ROUTECORE_STRATEGY": "expected_latency",
        "ROUTECORE_PARAMS": "kv_tokens=2000",
        "ROUTECORE_HOLD": "true",
    }

    async def shown(router: Router, count: int) -> None:
        await router.until("routecore_waiting_requests", count)
        lines = json.loads(await router.get("/held"))
        assert len(lines) == count and all("waits for room at" in line for line in lines), lines

    async def scenario(max_wait_s: str, waiting: int, answers: list[int]) -> None:
        engine = Stopped(Engine(model="m", speed=50.0).app)
        bounds = {"ROUTECORE_HOLD_LIMITS": f"max_requests=4,max_wait_s={max_wait_s}"}
        flags = ("--routing-logic", "prefixaware")
        look = ("look.py", *CALLBACKS)
        async with (
            serve(engine) as url,
            started(tmp_path, [url], *flags, command=look, **env, **bounds) as router,
        ):

            def ask(n: int, **more: Any) -> asyncio.Task[int]:
                return asyncio.create_task(router.chat(f"{n:05d} " * 1_000, max_tokens=20, **more))

            first = ask(1)
            await router.until("routecore_in_flight_requests", 1)
            asked = [ask(2), ask(3, stream=True)]
            leaving = [ask(5), ask(6, stream=True)] if waiting else []
            if waiting:
                await shown(router, waiting)
                assert await ask(4) == 429
                for number, task in enumerate(leaving):
                    task.cancel()
                    await shown(router, waiting - 1 - number)
                engine.go.set()
            assert await asyncio.gather(*asked) == answers
            engine.go.set()
            assert await first == 200
            await router.until("routecore_in_flight_requests", 0)
            await shown(router, 0)
            went = 1 + answers.count(200)
            assert await router.metric("routecore_waited_seconds_count") == went
            late = await router.metric("routecore_rejected_requests_total", '"seconds"')
            assert late == answers.count(429)
            assert await router.metric("routecore_decisions_total", '"fallback"') == 0

    asyncio.run(scenario("600", 4, [200, 200]))
    asyncio.run(scenario("0.3", 0, [429, 429]))


@pytest.mark.parametrize("logic", ["roundrobin", "session", "kvaware", "prefixaware"])
def test_each_routing_logic_starts_and_routes(tmp_path: Path, logic: str) -> None:
    async def test() -> None:
        flags = ("--routing-logic", logic, "--session-key", "x-user")
        async with fleet(2) as (_, urls), started(tmp_path, urls, *flags) as router:
            for n in range(4):
                assert await router.chat(f"{n}") == 200
            assert await router.metric("routecore_decisions_total", '"strategy"') == 4
            assert f"routing logic {logic}" in router.log()

    asyncio.run(test())


def test_an_orchestrated_pair_serves_a_request(tmp_path: Path) -> None:
    async def test() -> None:
        flags = ("--static-model-labels", "p,p,d,d", "--prefill-model-labels", "p")
        logic = ("--routing-logic", "disaggregated_prefill_orchestrated")
        async with (
            fleet(4) as (engines, urls),
            started(tmp_path, urls, *logic, *flags, "--decode-model-labels", "d") as router,
        ):
            text = "".join(f"{n:05d}" for n in range(400))
            for _ in range(4):
                assert await router.chat(text, max_tokens=4) == 200
            tokens = served(engines)
            assert sorted(tokens[:2])[0] == 0  # the prompt has one home
            await router.until("routecore_in_flight_requests", 0)
            assert await router.metric("routecore_decisions_total", '"strategy"') == 8

    asyncio.run(test())


NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("logic", "strategy"),
    [
        ("roundrobin", "round_robin"),
        ("session", "equal"),
        ("prefixaware", "prefix_cache"),
        ("prefixaware", "least_connections"),
        ("prefixaware", "expected_latency"),
    ],
)
def test_a_dead_engine_fails_no_more_than_the_first_requests(
    tmp_path: Path, logic: str, strategy: str
) -> None:
    async def test() -> None:
        flags = ("--routing-logic", logic, "--session-key", "x-user")
        env = {"ROUTECORE_STRATEGY": strategy}
        async with (
            fleet(2) as (_, urls),
            started(tmp_path, [*urls, NOWHERE], *flags, **env) as router,
        ):
            failed = 0
            for n in range(40):
                status, _ = await router.post(
                    "/v1/chat/completions",
                    json=chat(f"{n}", max_tokens=2),
                    headers={"x-user": f"user {n}"},
                )
                failed += status != 200
            assert 1 <= failed <= 5
            assert await router.metric("routecore_in_flight_requests") == 0

    asyncio.run(test())


def test_a_dead_half_of_a_pair_fails_no_more_than_the_first_requests(tmp_path: Path) -> None:
    async def test() -> None:
        flags = ("--static-model-labels", "p,p,d,d", "--prefill-model-labels", "p")
        logic = ("--routing-logic", "disaggregated_prefill_orchestrated")
        async with fleet(3) as (_, urls):
            for half in ([NOWHERE, *urls], [*urls[:2], NOWHERE, urls[2]]):
                async with started(
                    tmp_path, half, *logic, *flags, "--decode-model-labels", "d"
                ) as router:
                    asked = [await router.chat(f"{n} " * 200, max_tokens=2) for n in range(30)]
                    assert 1 <= sum(status != 200 for status in asked) <= 5
                    await router.until("routecore_in_flight_requests", 0)

    asyncio.run(test())


def test_a_dynamic_reload_keeps_us_in_place(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet(3) as (engines, urls):
            config = tmp_path / "dynamic.json"

            def write(backends: list[str]) -> None:
                chosen = {
                    "service_discovery": "static",
                    "routing_logic": "prefixaware",
                    "static_backends": ",".join(backends),
                    "static_models": ",".join(["m"] * len(backends)),
                    "callbacks": CALLBACKS[1],
                }
                config.write_text(json.dumps(chosen))

            write(urls[:2])
            flags = ("--routing-logic", "prefixaware", "--dynamic-config-json", str(config))
            async with started(tmp_path, urls, *flags) as router:
                assert await router.chat("x" * 600) == 200
                write(urls[2:])
                for _ in range(150):
                    if "Config reconfiguration complete" in router.log().rpartition("x" * 9)[2]:
                        await router.chat("y" * 600)
                        if served(engines)[2]:
                            break
                    await asyncio.sleep(0.1)
                assert served(engines)[2] > 0
                made = await router.metric("routecore_decisions_total", '"strategy"')
                assert await router.chat("z" * 600) == 200
                again = await router.metric("routecore_decisions_total", '"strategy"')
                assert again == made + 1
                assert "routed with its" not in router.log()

    asyncio.run(test())


def test_the_launcher_routes_with_the_strategy_it_is_given(tmp_path: Path) -> None:
    async def test() -> None:
        flags = ("--strategy", "least_connections", "--param", "ties=first")
        async with (
            fleet(2) as (_, urls),
            started(tmp_path, urls, *flags, command=LAUNCHER) as router,
        ):
            assert await router.chat("one") == 200
            assert "strategy least_connections ties='first', mode active" in router.log()
            assert await router.metric("routecore_decisions_total", "least_connections") == 1

    asyncio.run(test())


def test_in_the_shadow_the_host_routes_and_a_report_can_be_made(tmp_path: Path) -> None:
    async def test() -> None:
        env = {"ROUTECORE_MODE": "shadow", "ROUTECORE_STRATEGY": "prefix_affinity"}
        async with (
            fleet(2) as (engines, urls),
            started(tmp_path, urls, "--routing-logic", "roundrobin", **env) as router,
        ):
            text = "".join(f"{n:05d}" for n in range(400))
            for _ in range(6):
                assert await router.chat(text) == 200
            one, two = served(engines)
            assert one == two  # the host's turns
            assert await router.metric("routecore_decisions_total", '"shadow"') == 6
            assert await router.metric("routecore_in_flight_requests") == 0
            await asyncio.sleep(1.1)
            await router.chat(text)  # records are written when a second has passed
            await asyncio.sleep(0.5)  # and at the end of a request, which is after its answer

    asyncio.run(test())
    summary = summarise(tmp_path.glob("routecore-shadow-*.jsonl"))
    assert summary.requests >= 6
    assert summary.busiest_share["ours"] == 1.0
    assert summary.hit_rate["ours"] > summary.hit_rate["host"]


def test_a_wrong_setting_ends_the_start(tmp_path: Path) -> None:
    async def test() -> None:
        flags = ("--routing-logic", "prefixaware")
        env = {"ROUTECORE_STRATEGY": "fastest"}
        async with started(tmp_path, ["http://127.0.0.1:1"], *flags, **env) as router:
            assert "routecore: strategy: unknown 'fastest'; valid: " in router.log()
            assert "Traceback" not in router.log()

    asyncio.run(test())
