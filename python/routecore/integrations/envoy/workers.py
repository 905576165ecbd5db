"""Several processes on one port: each is a picker, and one process keeps them running."""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import signal
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import msgspec

from routecore.errors import RouteError
from routecore.integrations.envoy.settings import Settings
from routecore.integrations.shared.replicas import among_workers

_log = logging.getLogger("routecore.picker")
_SOON = 5.0  # seconds: a worker that ends sooner is started again later


def work(settings: bytes, number: int, level: int) -> None:
    """A worker's whole life: with the settings as JSON, until its parent says or is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal's goes to all; the parent passes it on
    logging.basicConfig(
        level=level, format=f"%(asctime)s %(levelname)s worker {number}: %(message)s"
    )
    given = msgspec.json.decode(settings, type=Settings)
    try:
        serve(given, number, with_parent=True)
    except (RouteError, ImportError) as error:
        _log.error("%s", error)
        raise SystemExit(2) from None


def serve(settings: Settings, number: int = 0, *, with_parent: bool = False) -> None:
    """`run` on a loop of its own: uvloop's, where it is installed, which takes a fifth less CPU.

    Raises:
        RouteError: As `run`.
        ImportError: As `run`.
    """
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(settings, number, with_parent=with_parent))


async def run(settings: Settings, number: int = 0, *, with_parent: bool = False) -> None:
    """Serve in this process until a signal ends it.

    Raises:
        RouteError: A setting cannot be honoured.
        ImportError: Names the extra that is missing.
    """
    from routecore.integrations.envoy.pages import Pages
    from routecore.integrations.envoy.server import Server

    server, pages = Server(settings), None
    if settings.metrics_port:
        pages = Pages(server.picker, settings.metrics_port + number)
    parent = multiprocessing.parent_process() if with_parent else None
    if parent is not None:
        loop = asyncio.get_running_loop()
        loop.add_reader(parent.sentinel, signal.raise_signal, signal.SIGTERM)
    try:
        await server.start()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again and again
        await server.serve()
    finally:
        await server.close()
        if pages is not None:
            pages.close()


class Workers:
    """Starts workers, starts those again that end, and passes signals on.

    Args:
        settings: Of each.
        level: Of their logs.
    """

    def __init__(self, settings: Settings, level: int) -> None:
        self._settings, self._level = settings, level
        self._context: Any = multiprocessing.get_context("spawn")
        self._running: dict[int, Any] = {}
        self._began: dict[int, float] = {}
        self._stopping = 0

    def run(self) -> None:
        """Until a signal ends them.

        Raises:
            RouteError: A worker refuses its settings.
        """
        for wanted in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wanted, self._stop)
        self._settings = among_workers(self._settings)
        try:
            for number in range(self._settings.workers):
                self._start(number)
            while self._running:
                wait([process.sentinel for process in self._running.values()], timeout=1.0)
                self._look()
        finally:
            for process in self._running.values():
                process.kill()

    def _start(self, number: int) -> None:
        raw = msgspec.json.encode(self._settings)
        process = self._context.Process(target=work, args=(raw, number, self._level))
        process.start()
        self._running[number], self._began[number] = process, time.monotonic()

    def _look(self) -> None:
        for number, process in list(self._running.items()):
            if process.is_alive():
                continue
            process.join()
            self._clear(process.pid)
            if self._stopping:
                del self._running[number]
            elif process.exitcode == 2:  # it would refuse them again
                raise RouteError(f"worker {number} refuses its settings; see its line above")
            else:
                _log.error("worker %d ended (%s); another is started", number, process.exitcode)
                if time.monotonic() - self._began[number] < _SOON:
                    time.sleep(1.0)
                self._start(number)

    def _clear(self, pid: int) -> None:
        """Nobody need look for the socket of a worker that is no more."""
        address = self._settings.replicas or ""
        scheme, _, folder = address.partition("://")
        if scheme in ("ipc", "zmq+ipc"):
            for path in Path(folder).glob(f"{pid}-*.sock"):
                path.unlink(missing_ok=True)

    def _stop(self, _number: int, _frame: Any) -> None:
        self._stopping += 1
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError, AttributeError):
                process.terminate() if self._stopping < 3 else process.kill()
