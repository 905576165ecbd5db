"""A Redis server of a test's own, and what stands between it and a router."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ports import free_port


def until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until it holds; far longer than it needs."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Server:
    """A `redis-server` of the test's own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._command = [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder), *options),
        ]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, "redis-server does not start")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Slow:
    """Passes bytes on to a port, each so many seconds later."""

    def __init__(self, port: int, delay: float) -> None:
        self._delay, self._to = delay, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                there, _ = self._listener.accept()
                here = socket.create_connection(("127.0.0.1", self._to))
                for pair in ((there, here), (here, there)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with source, sink, suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(self._delay)
                sink.sendall(data)

    def close(self) -> None:
        self._listener.close()
