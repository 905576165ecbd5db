"""The demo's engine, traffic and a small run over real HTTP."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from routecore import (
    EndpointInfo,
    EndpointTable,
    ExpectedLatencyRouter,
    HoldLimits,
    RequestStatsMonitor,
    RoundRobinRouter,
)
from routecore.demo.block_cache import BlockCache
from routecore.demo.engine import Engine, block_keys, toy_tokens
from routecore.demo.gateway import Gateway, last_usage
from routecore.demo.gateways import installed
from routecore.demo.runner import run
from routecore.demo.scheduler import Profile, Scheduler
from routecore.demo.sequence import Sequence
from routecore.demo.serving import serve
from routecore.demo.traffic import conversations, trace
from routecore.demo.trouble import Trouble
from routecore.endpoints.metrics import read_metrics

TEXT = "".join(f"{i:04d}" for i in range(1024))  # 1,024 tokens, 64 different blocks


def sequence(text: str, output: int = 1) -> Sequence:
    return Sequence(prompt=len(text) // 4, keys=block_keys(text), output=output)


def finish(scheduler: Scheduler, text: str, output: int = 1, tokens: bool = False) -> Sequence:
    done = sequence(text, output)
    done.token_ids = toy_tokens(text) if tokens else None
    scheduler.add(done, 0.0)
    scheduler.advance(1e9)
    assert done.emitted == output
    return done


def test_a_repeated_prompt_recomputes_its_last_block_only() -> None:
    scheduler = Scheduler()
    assert finish(scheduler, TEXT).cached == 0
    assert finish(scheduler, TEXT).cached == 1008
    assert (scheduler.hits, scheduler.queries) == (1008, 2048)


def test_a_first_token_takes_the_time_of_the_profile() -> None:
    scheduler = Scheduler(profile=Profile(1.0, 10.0, 0.1, 0.0, 0.0, 0.0))
    asked = sequence(TEXT, 2)
    scheduler.add(asked, 0.0)
    scheduler.advance(112.3)
    assert asked.emitted == 0
    scheduler.advance(112.5)  # 10 + 0.1 per token
    assert asked.emitted == 1
    scheduler.advance(113.5)  # a decode alone takes the floor
    assert asked.emitted == 2


def test_long_prompts_are_computed_in_chunks_of_the_budget() -> None:
    scheduler = Scheduler(budget=512)
    asked = sequence(TEXT)
    scheduler.add(asked, 0.0)
    assert len(asked.held) == 32
    scheduler.advance(1e9)
    assert asked.emitted == 1


def test_of_freed_blocks_the_oldest_request_loses_its_tail_first() -> None:
    cache = BlockCache(20)
    a, b, c = list(range(10)), list(range(100, 108)), list(range(200, 206))
    for keys in (a, b, c):
        assert all(cache.take(key) for key in keys)
        cache.release(keys)
    assert cache.match(a, 99) == 6
    assert (cache.match(b, 99), cache.match(c, 99)) == (8, 6)


def test_a_full_cache_preempts_the_last_admitted_and_ends_all() -> None:
    scheduler = Scheduler(kv_tokens=20 * 16)
    asked = [sequence(f"{name}" * 512, 100) for name in "ab"]  # 128 tokens each, then 100 more
    for one in asked:
        scheduler.add(one, 0.0)
    scheduler.advance(1e9)
    assert scheduler.preemptions > 0
    assert [one.emitted for one in asked] == [100, 100]
    assert not scheduler.cache.active


def test_an_aborted_request_leaves_no_block_in_use() -> None:
    scheduler = Scheduler()
    asked = sequence(TEXT, 50)
    scheduler.add(asked, 0.0)
    assert scheduler.cache.active
    scheduler.abort(asked)
    scheduler.abort(asked)
    scheduler.advance(1e9)
    assert not scheduler.cache.active
    assert not scheduler.running


def with_engine(ask: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with serve(Engine(speed=50).app) as url, aiohttp.ClientSession() as session:
            await ask(session, url)

    asyncio.run(inside())


def test_streams_and_plain_answers_report_cached_tokens() -> None:
    async def ask(session: aiohttp.ClientSession, url: str) -> None:
        body = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 5, "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            streamed = await answer.read()
        assert streamed.endswith(b"data: [DONE]\n\n")
        assert streamed.count(b" tok") == 5
        assert last_usage(streamed)["completion_tokens"] == 5
        async with session.post(
            f"{url}/v1/chat/completions", json={**body, "stream": False}
        ) as answer:
            plain = await answer.json()
        assert plain["choices"][0]["message"]["content"] == " tok" * 5
        assert plain["usage"]["prompt_tokens_details"]["cached_tokens"] > 900
        async with session.post(f"{url}/v1/completions", json={"prompt": "hi"}) as answer:
            assert (await answer.json())["choices"][0]["text"] == " tok" * 16

    with_engine(ask)


def test_metrics_are_readable_and_health_and_models_answer() -> None:
    async def ask(session: aiohttp.ClientSession, url: str) -> None:
        async with session.post(f"{url}/v1/completions", json={"prompt": TEXT}) as answer:
            assert answer.status == 200
        async with session.get(f"{url}/metrics") as answer:
            text = await answer.text()
        names = {sample.name for f in text_string_to_metric_families(text) for sample in f.samples}
        assert "vllm:cache_config_info" in names
        reading = read_metrics(text)
        assert (reading.running, reading.queries, reading.hits) == (0, 1024, 0)
        async with session.get(f"{url}/health") as answer:
            assert answer.status == 200
        async with session.get(f"{url}/v1/models") as answer:
            assert (await answer.json())["data"][0]["id"] == "demo"

    with_engine(ask)


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"messages": 3}', b'{"prompt":"a","max_tokens":"x"}']
)
def test_bad_bodies_are_refused(body: bytes) -> None:
    async def ask(session: aiohttp.ClientSession, url: str) -> None:
        async with session.post(f"{url}/v1/completions", data=body) as answer:
            assert answer.status == 400

    with_engine(ask)


def test_the_same_seed_gives_the_same_conversations() -> None:
    first, again = (conversations(rate=20, seconds=10, seed=3) for _ in range(2))
    assert first == again
    assert first != conversations(rate=20, seconds=10, seed=4)
    assert any(len(job.bodies) > 1 for job in first)


def test_equal_trace_blocks_become_equal_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {"timestamp": 0, "input_length": 1024, "output_length": 8}
    path.write_text("".join(json.dumps({**row, "hash_ids": [0, i]}) + "\n" for i in (1, 2)))
    first, second = (
        job.bodies[0]["messages"][0]["content"]
        for job in trace(path, rate=1000, seconds=10, seed=0)
    )
    assert len(first) == 1024
    assert first[:512] == second[:512]
    assert first[512:] != second[512:]


def test_a_run_measures_every_strategy() -> None:
    jobs = conversations(rate=20, seconds=4, seed=1)
    results = asyncio.run(
        run(jobs, ["round_robin", "prefix_affinity"], endpoints=2, seconds=0.5, speed=8)
    )
    assert [result.strategy for result in results] == ["round_robin", "prefix_affinity"]
    for result in results:
        figures = result.as_dict()
        assert figures["requests"] > 5
        assert figures["errors"] == 0
        assert len(result.ttft) + result.unfinished == result.requests
        assert figures["ttft_p99_ms"] >= figures["ttft_p50_ms"] > 0
        assert figures["decision_p50_us"] > 0
        assert figures["token_hit_rate"] > 0


def test_several_routers_serve_the_same_traffic_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="needs the extra replicas")
    jobs = conversations(rate=20, seconds=4, seed=1)
    results = asyncio.run(
        run(
            jobs,
            ["expected_latency"],
            endpoints=2,
            seconds=0.5,
            speed=8,
            routers=3,
            replicas=f"zmq+ipc://{tmp_path}",
        )
    )
    assert results[0].requests > 5
    assert results[0].errors == 0
    assert results[0].max_load > 0


def test_routers_of_the_demo_know_of_each_others_requests(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="needs the extra replicas")
    a, b = endpoints = [EndpointInfo(url=f"http://127.0.0.1:{port}") for port in (1, 2)]

    async def both() -> None:
        async with aiohttp.ClientSession() as session:
            first, second = gateways = [Gateway(endpoints, session) for _ in range(2)]
            address = f"zmq+ipc://{tmp_path}"
            with installed(gateways, "least_connections", seed=1, replicas=address):
                for at in range(5):
                    first.monitor.on_new_request(a.url, f"r{at}", time.time())
                chosen = {a.url}
                until = time.monotonic() + 30
                while chosen != {b.url} and time.monotonic() < until:
                    await asyncio.sleep(0.05)
                    stats = second.monitor.get_request_stats(time.time())
                    route = second.router.route_request
                    chosen = {route(endpoints, {}, stats, None) for _ in range(10)}
                assert chosen == {b.url}
                # The other way round it holds at once: its own requests.
                stats = first.monitor.get_request_stats(time.time())
                assert first.router.route_request(endpoints, {}, stats, None) == b.url

    asyncio.run(both())


def test_engines_that_break_are_left_alone_and_come_back() -> None:
    jobs = conversations(rate=20, seconds=40, seed=1)
    breaks = [Trouble("kill", 4.0, 0, 4.0), Trouble("sick", 4.0, 1, 4.0)]
    found = asyncio.run(
        run(jobs, ["least_connections"], endpoints=3, seconds=4, speed=8, troubles=breaks)
    )[0]
    news = [line.split(": ", 1)[1] for line in found.news]
    for line in (
        "engine 0 is killed",
        "engine 0 is out (connect)",
        "engine 0 is back",
        "engine 1 answers 500",
        "engine 1 is out (status)",
        "engine 1 is back",
    ):
        assert line in news, news
    assert 0 < found.errors < 0.2 * found.requests
    assert found.out == {}


def test_ctrl_c_ends_early_with_what_was_measured() -> None:
    jobs = conversations(rate=20, seconds=400, seed=1)
    sent = []

    def interrupt(_: object) -> None:
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    names = ["round_robin", "random"]
    found = asyncio.run(run(jobs, names, endpoints=2, seconds=60, speed=8, on_change=interrupt))
    assert [result.strategy for result in found] == ["round_robin"]
    assert found[0].requests > 0
    assert found[0].interrupted
    assert found[0].as_dict()["interrupted"]


def test_failed_and_abandoned_requests_leave_the_load() -> None:
    async def inside() -> None:
        monitor = RequestStatsMonitor(60.0, table=EndpointTable())
        body = {"prompt": TEXT, "max_tokens": 10_000, "stream": True}
        async with serve(Engine().app) as url, aiohttp.ClientSession() as session:
            dead = Gateway([EndpointInfo(url="http://127.0.0.1:1")], session)
            live = Gateway([EndpointInfo(url=url)], session)
            for gateway in (dead, live):
                gateway.use(RoundRobinRouter(), monitor, dict)
            async with (
                serve(dead.app) as door,
                session.post(f"{door}/v1/completions", json=body) as answer,
            ):
                assert answer.status == 502
            assert monitor.in_flight == 0
            async with serve(live.app) as door:
                async with session.post(f"{door}/v1/completions", json=body) as answer:
                    assert await answer.content.readany()
                    assert monitor.in_flight == 1
                for _ in range(1500):
                    if not monitor.in_flight:
                        break
                    await asyncio.sleep(0.02)
            assert monitor.in_flight == 0
            assert set(live.in_flight.values()) == {0}

    asyncio.run(inside())


def test_requests_wait_at_the_gateway_and_leave_with_their_clients() -> None:
    async def inside() -> None:
        monitor = RequestStatsMonitor(60.0, table=EndpointTable())
        router = ExpectedLatencyRouter(kv_tokens=1_000, seed=1)
        router.set_hold(HoldLimits(max_requests=1))
        async with serve(Engine().app) as url, aiohttp.ClientSession() as session:
            gateway = Gateway([EndpointInfo(url=url)], session, hold=True)
            gateway.use(router, monitor, dict)

            async def ask(number: int) -> tuple[int, str | None]:
                body = {"prompt": f"{number:04d}" * 600, "max_tokens": 10_000, "stream": True}
                async with session.post(f"{door}/v1/completions", json=body) as answer:
                    if answer.status == 200:
                        await answer.content.readany()
                        await left.wait()
                    return answer.status, answer.headers.get("retry-after")

            async def until(met: Callable[[], bool]) -> None:
                for _ in range(1500):
                    if met():
                        return
                    await asyncio.sleep(0.02)
                pytest.fail(f"{router.hold.counts}, {monitor.in_flight} in flight")

            left = asyncio.Event()
            async with serve(gateway.app) as door:
                first = asyncio.create_task(ask(1))
                await until(lambda: monitor.in_flight == 1)
                second = asyncio.create_task(ask(2))
                await until(lambda: router.hold.counts.waiting == 1)
                (waits,) = gateway.held_requests()
                assert waits.waits is not None and f"waits for room at {url}" in str(waits)
                status, after = await ask(3)
                assert status == 429
                assert int(after or 0) >= 1
                second.cancel()
                await until(lambda: router.hold.counts.waiting == 0)
                assert router.hold.counts.left == 1
                fourth = asyncio.create_task(ask(4))
                await until(lambda: router.hold.counts.waiting == 1)
                left.set()
                assert (await first)[0] == 200
                assert (await asyncio.wait_for(fourth, 10))[0] == 200
                await until(lambda: monitor.in_flight == 0)
            assert (router.hold.counts.admitted, router.hold.counts.held) == (2, 1)
            assert len(gateway.decisions_us) == 1

    asyncio.run(inside())
