"""How the end of an attempt reaches the monitor: real connections, a stand-in of the host."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from ports import free_port
from production_stack_host import BODY, CALLBACKS, URLS, run

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Recording:
    """A monitor that keeps the ends reported to it."""

    def __init__(self, monitor: Any) -> None:
        self._core, self.ends = monitor.core, []
        monitor.core = self

    def on_request_complete(self, url: str, _id: str, _at: float, status: Any = None) -> None:
        self.ends.append((url, status))

    def on_request_failed(
        self, url: str, _id: str, _at: float, reason: str = "unknown", wait: Any = None
    ) -> None:
        self.ends.append((url, reason) if wait is None else (url, reason, wait))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


@contextlib.asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


async def proxied(app: Any, url: str, *, leaves: bool = False) -> None:
    """What the host does with a request once it has chosen, in short."""
    request = SimpleNamespace(app=app, headers={})
    app.state.callbacks.pre_request(_Request(app), b"", BODY)
    monitor = app.state.request_stats_monitor
    monitor.on_new_request(url, "id", time.time())
    client = app.state.aiohttp_client_wrapper()
    async with client.request(
        "POST", url + "/v1/chat/completions", json=BODY, timeout=aiohttp.ClientTimeout(0.5)
    ) as answer:
        async for _ in answer.content.iter_any():
            monitor.on_request_response(url, "id", time.time())
            if leaves:
                raise asyncio.CancelledError
    monitor.on_request_complete(url, "id", time.time())
    await app.state.callbacks.post_request(request, b"{}")


class _Request:
    def __init__(self, app: Any) -> None:
        self.app, self.headers = app, {}


async def ends(stand_in: Any, url: str, **how: Any) -> list[Any]:
    """What is reported to the monitor of one request to the URL; the URL itself left out."""
    app = stand_in.app
    recording = Recording(app.state.request_stats_monitor)
    async with aiohttp.ClientSession() as session:
        app.state.aiohttp_client_wrapper = lambda: session
        from routecore.integrations.production_stack import client

        client.listen(app)
        client.listen(app)  # again: no change
        task = asyncio.create_task(proxied(app, url, **how))
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
    assert {end[0] for end in recording.ends} <= {url}
    return [end[1:] if len(end) > 2 else end[1] for end in recording.ends]


def answers(status: int, **headers: str) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=status, headers=headers)

    return handler


async def cuts(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"data: {}\n\n")
    assert request.transport is not None
    request.transport.close()
    return answer


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def sleeps(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def streams(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(3):
        await answer.write(b"data: {}\n\n")
        await asyncio.sleep(0.01)
    return answer


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (answers(200), None),
        (streams, None),
        (answers(500), 500),
        (answers(502), 502),
        (answers(404), 404),
        (answers(429), "busy"),
        (answers(503, **{"Retry-After": "7"}), ("busy", 7.0)),
        (answers(429, **{"Retry-After": "soon"}), "busy"),
        (cuts, "broken"),
        (resets, "broken"),
        (sleeps, "timeout"),
    ],
)
def test_an_end_is_reported_once_and_as_what_it_was(
    stand_in: Any, handler: Handler, said: Any
) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)

    async def one() -> list[Any]:
        async with engine(handler) as url:
            return await ends(stand_in, url)

    assert run(one()) == [said]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{free}", "http://no-such-host.invalid:80"])
def test_an_engine_that_is_not_reached_is_reported(stand_in: Any, url: str) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)
    assert run(ends(stand_in, url.format(free=free_port()))) == ["connect"]


def test_a_client_that_leaves_says_nothing_of_the_engine(stand_in: Any) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)

    async def one() -> list[Any]:
        async with engine(streams) as url:
            return await ends(stand_in, url, leaves=True)

    assert run(one()) == ["client"]


def test_an_attempt_is_reported_before_the_next_one_is_chosen(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    recording = Recording(app.state.request_stats_monitor)

    async def two() -> None:
        from routecore.integrations.production_stack import client

        async with aiohttp.ClientSession() as session, engine(answers(200)) as url:
            app.state.aiohttp_client_wrapper = lambda: session
            client.listen(app)
            app.state.callbacks.pre_request(_Request(app), b"", BODY)
            dead = f"http://127.0.0.1:{free_port()}"
            with contextlib.suppress(aiohttp.ClientError):
                await proxied(app, dead)
            assert recording.ends == [(dead, "connect")]
            await proxied(app, url)
            await asyncio.sleep(0)
            assert recording.ends == [(dead, "connect"), (url, None)]

    run(two())


def test_in_shadow_mode_the_hosts_choice_is_blamed_and_not_ours(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    recording = Recording(app.state.request_stats_monitor)

    async def one() -> None:
        from routecore.integrations.production_stack.request_lifecycle import follow
        from routecore.integrations.shared.shadow import Choice, MovedRequests

        request, monitor = _Request(app), app.state.request_stats_monitor
        monitor._moved = MovedRequests(recording)  # type: ignore[arg-type]
        follow(request).choice = Choice(app.state.router.decision.shadow, URLS[0], 0.0, {}, None)
        monitor.on_new_request(URLS[1], "id", 1.0)
        monitor.on_request_failed(URLS[1], "id", 2.0, "connect")
        app.state.router.close()

    run(one())
    assert recording.ends[:2] == [(URLS[0], "client"), (URLS[1], "connect")]
