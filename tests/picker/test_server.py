"""The picker's process: health, its end, its return, several workers."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import free_port
from world import CHAT, Envoy, chat, needs_envoy, run, until, world

NAMES = ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")
SERVING = health_pb2.HealthCheckResponse.SERVING


async def serving(port: int) -> dict[str, bool]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        found = {}
        for name in NAMES:
            request = health_pb2.HealthCheckRequest(service=name)
            found[name] = (await stub.Check(request, wait_for_ready=True)).status == SERVING
        return found


async def ready(made: asyncio.subprocess.Process, port: int) -> None:
    """Until the process serves; a test whose process ends instead shows its last words."""
    asking = asyncio.create_task(serving(port))
    ending = asyncio.create_task(made.wait())
    try:
        await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            pytest.fail(f"the picker ended with {made.returncode} before it served")
        await asking
    finally:
        asking.cancel()
        ending.cancel()


def test_it_is_ready_once_endpoints_are_known() -> None:
    async def test() -> None:
        async with world(0, endpoints="dns:localhost.invalid:80", dns_every=3600, start=False) as w:
            # The name has no addresses, which is an answer.
            assert all((await serving(w.server.port)).values())
            await w.server.health.set_ready(False)
            assert await serving(w.server.port) == dict.fromkeys(NAMES, False) | {"liveness": True}

    run(test())


@needs_envoy
def test_at_its_end_answers_go_on_and_new_requests_are_still_taken() -> None:
    async def test() -> None:
        async with world(2, drain_delay=0.5, drain_timeout=5) as w:
            for engine in w.engines:
                engine.pause = 0.01
            open_ones = [
                await w.client.post(
                    w.url + CHAT, json=chat("hi"), headers={"x-engine": "stream 200"}
                )
                for _ in range(5)
            ]
            draining = asyncio.create_task(w.server.drain())
            await until(lambda: w.server.health.is_ready is False)
            assert (await w.post()).status == 200
            await draining
            assert w.server.counters.open == 0
            for answer in open_ones:
                assert (await answer.text()).endswith("[DONE]\n\n")

    run(test())


@contextlib.asynccontextmanager
async def process(*words: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "routecore", "picker", "--metrics-port", "0", *words),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ROUTECORE_DRAIN_DELAY": "0", **variables},
    )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
        _, words_of_it = await made.communicate()
        print(words_of_it.decode())  # shown where the test fails


@needs_envoy
@pytest.mark.parametrize("buffered", [False, True], ids=["streamed", "buffered"])
def test_killed_and_started_again_requests_fail_only_while_it_is_down(buffered: bool) -> None:
    async def test() -> None:
        from routecore.integrations.envoy.bootstrap import bootstrap
        from routecore.integrations.envoy.settings import load

        async with world(2, start=False) as w:
            port = free_port()
            given = {
                "endpoints": ",".join(engine.address for engine in w.engines),
                "listen": f"127.0.0.1:{port}",
            }
            words = [word for name, value in given.items() for word in (f"--{name}", value)]
            config = bootstrap(
                load(given, {}), port=0, address="127.0.0.1", admin=0, buffered=buffered
            )
            envoy = Envoy(config)
            w.on_end(envoy.stop)
            for engine in w.engines:
                engine.pause = 0.02
            async with process(*words) as first:
                await ready(first, port)
                await envoy.start(w.client)
                w.envoys.append(envoy)

                async def served() -> bool:
                    return (await w.post()).status == 200

                async with asyncio.timeout(20):
                    while not await served():
                        await asyncio.sleep(0.05)
                long = await w.client.post(
                    w.url + CHAT, json=chat("hi"), headers={"x-engine": "stream 100"}
                )
                first.send_signal(signal.SIGKILL)
                await first.wait()
                if buffered:  # the gateway goes on by itself
                    assert (await long.text()).endswith("[DONE]\n\n")
                    assert await served()
                else:  # by the standard's mode it can't
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await long.read()
                    assert not await served()
            async with process(*words) as second:
                await ready(second, port)
                async with asyncio.timeout(20):
                    while not await served():
                        await asyncio.sleep(0.05)
                assert all([await served() for _ in range(20)])

    run(test())


def test_a_signal_ends_it_gently() -> None:
    async def test() -> None:
        port = free_port()
        words = ("--endpoints", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}")
        async with process(*words) as made:
            await ready(made, port)
            made.send_signal(signal.SIGINT)
            made.send_signal(signal.SIGTERM)  # the second one ends it at once
            async with asyncio.timeout(20):
                assert await made.wait() == 0

    run(test())


@pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT shares a port on Linux")
def test_workers_share_a_port_and_come_back() -> None:
    async def test() -> None:
        port = free_port()
        words = ("--endpoints", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}", "--workers", "2")
        async with process(*words) as made:
            await ready(made, port)
            assert made.stderr is not None
            lines: list[str] = []

            async def read(count: int) -> None:
                assert made.stderr is not None
                async with asyncio.timeout(20):
                    while sum("listens on port" in line for line in lines) < count:
                        lines.append((await made.stderr.readline()).decode())

            await read(2)
            (child, *_) = await children(made.pid)
            os.kill(child, signal.SIGKILL)
            await read(3)
            made.send_signal(signal.SIGTERM)
            made.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await made.wait() == 0

    run(test())


async def children(pid: int) -> list[int]:
    """Python processes under the parent that listen; not multiprocessing's own helper."""
    found = []
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{number}/cmdline").read_bytes()
        if b"spawn_main" in words:
            found.append(int(number))
    return found


def test_a_port_that_is_taken_is_reported() -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            words = ("--endpoints", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}")
            async with process(*words) as made:
                assert made.stderr is not None
                lines = (await made.stderr.read()).decode().splitlines()
                assert await made.wait() == 2
                assert lines[-1].startswith("error: listen")

    run(test())


@needs_envoy
def test_metrics_tell_of_streams_endpoints_and_refusals() -> None:
    async def test() -> None:
        async with world(3, max_body_bytes=2_000) as w:
            await w.post()
            await w.post(b"x" * 3_000)
            await w.idle()
            value = w.server.counters.registry.get_sample_value
            assert value("routecore_picker_endpoints", {"ready": "true"}) == 3
            assert value("routecore_picker_streams") == 0
            assert value("routecore_picker_refused_requests_total", {"status": "413"}) == 1
            assert value("routecore_picker_refused_requests_total", {"status": "503"}) == 0

    run(test())


@needs_envoy
def test_engines_are_scraped() -> None:
    async def test() -> None:
        from aiohttp import web

        async def metrics(_request: Any) -> web.Response:
            return web.Response(text="vllm:num_requests_running 3\nvllm:num_requests_waiting 5\n")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            address = f"127.0.0.1:{runner.addresses[0][1]}"
            async with world(0, endpoints=address, scrape_every=0.05, start=False) as w:
                found = w.picker.scraper.get_engine_stats
                await until(lambda: f"http://{address}" in found())
                assert found()[f"http://{address}"].num_queuing_requests == 5
        finally:
            await runner.cleanup()

    run(test())


def test_nothing_is_said_to_the_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pickers in one process count apart."""

    async def test() -> None:
        async with world(1, start=False) as one, world(1, start=False) as two:
            assert one.picker.monitor is not two.picker.monitor
            with contextlib.suppress(aiohttp.ClientError):
                await one.picker.pick("a", None, None, json.dumps(chat("x")).encode())
            assert (one.in_flight, two.in_flight) == (1, 0)

    run(test())
