"""Servers of the live demo on the loopback, each of which can be killed and started again."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # Ctrl-C belongs to the run, not to each of its servers


class Served:
    """An ASGI application behind a port of the loopback.

    Args:
        app: The application; it survives its server.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._port = 0
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, or listened last."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen: on a free port the first time, on the same one from then on."""
        if self._server is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._port))
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Let open requests end for a second, then listen no more."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is not None and task is not None:
            server.should_exit = True
            await task

    async def kill(self) -> None:
        """Cut every connection and refuse new ones, as the end of a process does."""
        if self._server is None:
            return
        for listening in self._server.servers:
            listening.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        for request in list(self._server.server_state.tasks):
            request.cancel()
        await self.stop()


@contextlib.asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free loopback port; gives its URL."""
    async with serving(app) as served:
        yield served.url


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[Served]:
    """The same, with a handle to kill it."""
    served = Served(app)
    await served.start()
    try:
        yield served
    finally:
        await served.stop()
