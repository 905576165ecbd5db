"""The gRPC server: streams of gateways, health, endpoints, and a gentle end."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import grpc

from routecore.errors import RouteError
from routecore.integrations.envoy.decision import Picker
from routecore.integrations.envoy.endpoints import dns, file
from routecore.integrations.envoy.endpoints.address import listening, probe
from routecore.integrations.envoy.endpoints.source import File, Fixed, Name
from routecore.integrations.envoy.exchange import Exchange
from routecore.integrations.envoy.health import EXT_PROC, Health
from routecore.integrations.envoy.metrics import Counters
from routecore.integrations.envoy.settings import Settings
from routecore.integrations.envoy.tls import checked_pair

_log = logging.getLogger("routecore.picker")
OPTIONS: tuple[tuple[str, Any], ...] = (
    # The gateway bounds its messages; 4 MiB would be less than it may send.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Pings that measure the network take a tenth of the CPU, to find a window for the bodies that
    # is large enough; this one is.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    ("grpc.optimization_target", "throughput"),
)
"""Of the gRPC server."""
_LOOK = 0.1  # seconds between two looks at what is still open, at the end


class Server:
    """A picker that listens.

    Args:
        settings: All there is to set.
        registry: Of the metrics; prometheus_client's default if left out.

    Attributes:
        picker: Chooses and counts.
        port: Where it listens, once started.
        health_port: Where the health services listen in plain text, if they do.

    Raises:
        RouteError: A setting is refused.
    """

    def __init__(self, settings: Settings, registry: Any = None) -> None:
        self.settings = settings
        self.picker: Picker = Picker(settings)
        self.counters: Counters = Counters(self.picker.pool, registry)
        self.port: int = 0
        self.health_port: int = 0
        self._server: Any = None
        self._plain: Any = None
        self._closed = False
        self._exchanges: set[Exchange] = set()
        self._watching: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._draining = False

    async def start(self) -> None:
        """Listen, and follow the endpoints.

        Raises:
            RouteError: The port is taken, or a file that is named cannot be read.
            ImportError: Names the extra that is missing.
        """
        source = self.settings.source()
        if isinstance(source, File):
            file.load(source.path)  # a mistake shows now
        reuse = ("grpc.so_reuseport", 1 if self.settings.workers > 1 else 0)
        self._server = grpc.aio.server(options=[*OPTIONS, reuse])
        if self.settings.health_port is not None:
            self._plain = grpc.aio.server(options=[reuse])
        handler = grpc.stream_stream_rpc_method_handler(self._process)
        service = grpc.method_handlers_generic_handler(EXT_PROC, {"Process": handler})
        self._server.add_generic_rpc_handlers((service,))
        servers = [server for server in (self._server, self._plain) if server is not None]
        self.health: Health = Health(*servers)
        await self.health.start()
        self._listen()
        self.picker.pool.on_change(self._endpoints_changed)
        self._watching = asyncio.create_task(self._watch(source))
        self.picker.start()
        for server in servers:
            await server.start()
        _log.info("picker listens on port %d", self.port)

    def _listen(self) -> None:
        host, _ = listening(self.settings.listen)
        pair = checked_pair(self.settings.tls_certificate, self.settings.tls_key)
        credentials = None if pair is None else grpc.ssl_server_credentials([pair])
        self.port = self._bound(self._server, "listen", self.settings.listen, credentials)
        if self._plain is not None:
            where = f"[{host}]" if ":" in host else host
            where = f"{where}:{self.settings.health_port}"
            self.health_port = self._bound(self._plain, "health_port", where, None)

    def _bound(self, server: Any, name: str, given: str, credentials: Any) -> int:
        """The port on which the server listens.

        Raises:
            RouteError: It cannot; says why.
        """
        host, port = listening(given)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            probe(host, port, shared=self.settings.workers > 1)
            if credentials is not None:
                return int(server.add_secure_port(where, credentials))
            return int(server.add_insecure_port(where))
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or "cannot"
            raise RouteError(f"{name} {given!r}: {why}") from None

    async def _process(self, _requests: Any, context: Any) -> None:
        exchange = Exchange(self.picker, self.counters, context)
        self._exchanges.add(exchange)
        self.counters.open += 1
        try:
            await exchange.run()
        finally:
            self.counters.open -= 1
            self._exchanges.discard(exchange)

    async def _watch(self, source: Any) -> None:
        """Follow the endpoints, whatever happens."""
        found = self.picker.pool.update
        if isinstance(source, Fixed):
            return found(dict.fromkeys(source.addresses, True))
        following: Coroutine[Any, Any, None]
        if isinstance(source, File):
            following = file.watch(source.path, found)
        elif isinstance(source, Name):
            following = dns.watch(source.host, source.port, self.settings.dns_every, found)
        else:
            from routecore.integrations.envoy.endpoints import kubernetes

            following = kubernetes.watch(source, found)
        await following

    def _endpoints_changed(self) -> None:
        pool = self.picker.pool
        _log.info("%d endpoints, %d of them ready", len(pool), len(pool.ready))
        if not self._draining:
            telling = asyncio.get_running_loop().create_task(self.health.set_ready(pool.synced))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then end gently; a second signal ends at once.

        Raises:
            RouteError: The endpoints can be followed no longer.
            ImportError: Names the extra that is missing.
        """
        loop, stop, now = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            (now if stop.is_set() else stop).set()

        with _signals(loop, signalled):
            waiting = asyncio.create_task(stop.wait())
            watching = self._watching
            while not stop.is_set():
                tasks = {waiting} if watching is None else {waiting, watching}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if watching is not None and watching.done():
                    watching.result()
                    watching = None
            ending = asyncio.create_task(self.drain())
            hurry = asyncio.create_task(now.wait())
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            for task in (ending, hurry):
                task.cancel()
            await asyncio.gather(ending, hurry, return_exceptions=True)
        await self.close()

    async def drain(self) -> None:
        """Say that nothing more should come, wait, and let go of what is open.

        An answer that is on its way goes on without us; a request that has no endpoint yet gets
        one first.
        """
        self._draining = True
        await self.health.set_ready(False)
        await asyncio.sleep(self.settings.drain_delay)
        stopping = asyncio.create_task(self._server.stop(self.settings.drain_timeout))
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.drain_timeout
        while self._exchanges and loop.time() < end:
            for exchange in list(self._exchanges):
                if exchange.may_leave:
                    exchange.leave()
            await asyncio.sleep(_LOOK)
        await stopping

    async def close(self) -> None:
        """End at once; requests that are open leave the load. A second call changes nothing."""
        if self._closed:
            return
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._watching
        for server in (self._server, self._plain):
            if server is not None:
                await server.stop(0)
        self.picker.close()
        self.counters.close()


@contextlib.contextmanager
def _signals(loop: Any, stop: Any) -> Any:
    wanted = (signal.SIGTERM, signal.SIGINT)
    for number in wanted:
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.remove_signal_handler(number)
