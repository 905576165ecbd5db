"""Pickers that end and come back while requests come in."""

import asyncio
import contextlib
import signal
from typing import Any

import aiohttp
import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from ports import free_port
from test_server import process, ready
from world import CHAT, Envoy, World, chat, needs_envoy, run, world

pytestmark = needs_envoy


class Load:
    """Clients that ask again and again, and what became of their requests.

    Attributes:
        failed: Numbers of the requests that failed.
        sent: Requests so far.
    """

    def __init__(self, w: World, url: str) -> None:
        self._w, self._url = w, url
        self.sent = 0
        self.failed: set[int] = set()
        self._served = 0
        self._stop = False

    async def one(self) -> None:
        while not self._stop:
            self.sent += 1
            number = self.sent
            ok = False
            with contextlib.suppress(aiohttp.ClientError):
                headers = {"x-engine": "stream 5"}
                body = chat("hi " * 300)
                posted = self._w.client.post(self._url + CHAT, json=body, headers=headers)
                async with posted as answer:
                    text = await answer.text()
                    ok = answer.status == 200 and text.endswith("[DONE]\n\n")
            if ok:
                self._served += 1
            else:
                self.failed.add(number)
                await asyncio.sleep(0.02)

    async def more(self, count: int) -> None:
        """Until so many more were served."""
        wanted = self._served + count
        async with asyncio.timeout(20):
            while self._served < wanted:
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        tasks = [asyncio.create_task(self.one()) for _ in range(6)]
        try:
            yield self
        finally:
            self._stop = True
            await asyncio.gather(*tasks)


async def behind(w: World, ports: list[int]) -> Envoy:
    """An Envoy that asks the pickers on these ports, and looks at their health often."""
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.settings import load

    endpoints = ",".join(engine.address for engine in w.engines)
    settings = load({"endpoints": endpoints, "listen": f"127.0.0.1:{ports[0]}"}, {})
    config = bootstrap(settings, port=0, address="127.0.0.1", admin=0)
    cluster = config["static_resources"]["clusters"][1]
    (check,) = cluster["health_checks"]
    check |= {"interval": "0.1s", "no_traffic_interval": "0.1s"}
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in ports
    ]
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": hosts}]
    envoy = Envoy(config)
    w.on_end(envoy.stop)
    await envoy.start(w.client)
    async with asyncio.timeout(20):
        while (await w.client.get(envoy.url)).status != 200:
            await asyncio.sleep(0.05)
    return envoy


def words(w: World, port: int) -> list[str]:
    endpoints = ",".join(engine.address for engine in w.engines)
    return ["--endpoints", endpoints, "--listen", f"127.0.0.1:{port}"]


def test_one_of_two_ends_and_comes_back_and_no_request_fails() -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            w = await stack.enter_async_context(world(2, start=False))
            for engine in w.engines:
                engine.pause = 0.01
            ports = [free_port(), free_port()]
            delay = {"ROUTECORE_DRAIN_DELAY": "3"}
            first = await stack.enter_async_context(process(*words(w, ports[0]), **delay))
            second = await stack.enter_async_context(process(*words(w, ports[1])))
            for made, port in zip((first, second), ports, strict=True):
                await ready(made, port)
            load = Load(w, (await behind(w, ports)).url)
            async with load.running():
                await load.more(50)
                first.send_signal(signal.SIGTERM)
                async with asyncio.timeout(30):
                    assert await first.wait() == 0
                await load.more(50)
                again = await stack.enter_async_context(process(*words(w, ports[0])))
                await ready(again, ports[0])
                await load.more(50)
            assert not load.failed

    run(test())


def test_one_that_is_killed_under_load() -> None:
    """Requests fail from then on until another is there, and neither before nor after."""

    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            w = await stack.enter_async_context(world(2, start=False))
            port = free_port()
            first = await stack.enter_async_context(process(*words(w, port)))
            await ready(first, port)
            load = Load(w, (await behind(w, [port])).url)
            async with load.running():
                await load.more(50)
                assert not load.failed
                first.send_signal(signal.SIGKILL)
                await first.wait()
                again = await stack.enter_async_context(process(*words(w, port)))
                await ready(again, port)
                await load.more(100)  # the gateway has found it
                failed = len(load.failed)
                await load.more(100)
                assert failed > 0
                assert len(load.failed) == failed

    run(test())
