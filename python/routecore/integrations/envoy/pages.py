"""What a picker shows over HTTP: `/held`, the requests that wait, and its metrics."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from routecore.errors import RouteError
from routecore.integrations.envoy.decision import Picker
from routecore.process import renew_lock, watch

_PATIENCE = 10.0  # seconds for the loop to answer
_ENDS = "503 Service Unavailable", {"error": "the picker is busy, or about to end"}
_Respond: TypeAlias = Callable[[str, list[tuple[str, str]]], object]


class Pages:
    """Serves them from a thread of its own; what they show is read on the picker's loop.

    Args:
        picker: Whose requests are shown.
        port: Where to listen, on all addresses.
        registry: Of the metrics; prometheus_client's default if left out.

    Raises:
        RouteError: The port is taken.
    """

    def __init__(self, picker: Picker, port: int, registry: Any = None) -> None:
        self._picker = picker
        self._loop = asyncio.get_running_loop()
        self._looking = threading.Lock()  # a crowd that looks is no reason to look in a crowd
        self._metrics: Any = make_wsgi_app() if registry is None else make_wsgi_app(registry)
        try:
            self._server = make_server("0.0.0.0", port, self._page, ThreadingWSGIServer, _Silent)
        except OSError as error:
            raise RouteError(f"metrics_port {port}: {error.strerror}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="routecore-pages", daemon=True
        )
        self._closed = False
        self._thread.start()
        renew_lock(self, "_looking")
        watch(self)

    def close(self) -> None:
        """Listen no longer. A second call changes nothing."""
        if self._closed:
            return
        self._closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _at_exit(self) -> None:
        self.close()

    def _after_fork(self) -> None:
        self._closed = True
        self._server.server_close()

    def _page(self, environ: dict[str, Any], respond: _Respond) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/held" or environ["REQUEST_METHOD"] != "GET":
            found: Iterable[bytes] = self._metrics(environ, respond)
            return found
        status, shown = self._held()
        respond(status, [("Content-Type", "application/json")])
        return [msgspec.json.encode(shown)]

    def _held(self) -> tuple[str, dict[str, Any]]:
        if not self._picker.settings.hold:
            return "404 Not Found", {"error": "no request waits: the picker has no hold (--hold)"}
        with self._looking:
            asking = self._picker.held()
            try:
                asked = asyncio.run_coroutine_threadsafe(asking, self._loop)
            except RuntimeError:  # the loop is closed
                asking.close()
                return _ENDS
            try:
                held = asked.result(_PATIENCE)
            except (TimeoutError, CancelledError):
                asked.cancel()
                return _ENDS
        counts = self._picker.router.hold.counts
        return "200 OK", {"waiting": counts.waiting, "held": held}


class _Silent(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
