"""Messages from each router to each other one by ZMQ, without a server."""

import glob
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from routecore.errors import RouteError
from routecore.process import renew_lock

try:
    import zmq
except ModuleNotFoundError as _missing:
    raise ImportError(
        "replicas over ZMQ need pyzmq: pip install 'routecore[replicas]'"
    ) from _missing

_LOOK_SECONDS = 2.0
"""Between two looks at who is there."""
_LONGEST = 4 << 20
"""Bytes of the longest message that is taken in."""


class ZMQChannel:
    """Publishes on a port of its own, or on a socket in a folder, and subscribes to all others'.

    Args:
        address: `zmq://name:5570[,name:5570…]`: every address that a name has is a router, as those
            of a headless Service are; this one publishes on the first port, or `?bind=host:port`.
            `ipc:///folder` (or `zmq+ipc:///folder`): routers on one machine, each with a socket in
            that folder.

    Raises:
        RouteError: If the address cannot be used.
    """

    every: float = 0.05

    def __init__(self, address: str) -> None:
        self._address = address
        self._folder: Path | None = None
        self._names: list[tuple[str, int]] = []
        scheme, colon, folder = address.partition("://")
        if scheme.lower() in ("ipc", "zmq+ipc"):
            self._folder = Path(folder)
            if not colon or not self._folder.is_absolute():
                raise RouteError(
                    f"replicas {address!r}: expected ipc:///folder, an absolute path; did you mean "
                    f"ipc:///{folder or 'run/routecore'}?"
                )
            if self._folder.exists() and not self._folder.is_dir():
                raise RouteError(f"replicas {address!r}: {folder} is a file; expected a folder")
        else:
            parts = urlsplit(address)
            for name in filter(None, parts.netloc.split(",")):
                host, colon, port = name.rpartition(":")
                if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
                    raise RouteError(_expected(address))
                self._names.append((host.strip("[]"), int(port)))
            if not self._names:
                raise RouteError(_expected(address))
            self._bind = parse_qs(parts.query).get("bind", [f"*:{self._names[0][1]}"])[0]
        self._lock = threading.Lock()
        renew_lock(self, "_lock")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._publisher: zmq.Socket[bytes] | None = None
        self._subscriber: zmq.Socket[bytes] | None = None
        self._own: Path | None = None
        self._known: set[str] = set()
        self._looked = 0.0

    def open(self) -> None:
        self.close()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        publisher, subscriber = context.socket(zmq.PUB), context.socket(zmq.SUB)
        for made in (publisher, subscriber):
            made.setsockopt(zmq.LINGER, 100)
            made.setsockopt(zmq.MAXMSGSIZE, _LONGEST)
            made.setsockopt(zmq.SNDHWM, 100)
            made.setsockopt(zmq.RCVHWM, 1000)
            if self._folder is None:
                made.setsockopt(zmq.IPV6, 1)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._context, self._publisher, self._subscriber = context, publisher, subscriber
        if self._folder is None:
            publisher.bind(f"tcp://{self._bind}")
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._own = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.sock"
            publisher.bind(f"ipc://{self._own}")
        self._known.clear()
        self._look()

    def send(self, message: bytes) -> None:
        with self._lock:
            if self._publisher is not None:
                self._publisher.send(message)  # a full queue drops it, and waits for nobody

    def receive(self, timeout: float) -> list[bytes]:
        subscriber = self._subscriber
        if subscriber is None:
            return []
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        found: list[bytes] = []
        if subscriber.poll(int(1000 * timeout)):
            with suppress(zmq.Again):
                while len(found) < 256:
                    found.append(subscriber.recv(zmq.NOBLOCK))
        return found

    def close(self) -> None:
        with self._lock:
            publisher, self._publisher = self._publisher, None
        subscriber, self._subscriber = self._subscriber, None
        for made in (publisher, subscriber):
            if made is not None:
                made.close()
        if self._context is not None:
            self._context.term()
            self._context = None
        if self._own is not None:
            self._own.unlink(missing_ok=True)
            self._own = None

    def after_fork(self) -> None:
        """In the child of a fork: sockets and context are the parent's, and stay so."""
        _of_parents.extend((self._context, self._publisher, self._subscriber))
        self._context = self._publisher = self._subscriber = self._own = None

    def _look(self) -> None:
        """Connects to who is new, and lets go of who is there no more."""
        self._looked = time.monotonic()
        found: set[str] = set()
        if self._folder is not None:
            found = {f"ipc://{path}" for path in glob.glob(f"{self._folder}/*.sock")}
        for host, port in self._names:
            with suppress(OSError):
                for family, _, _, _, there in socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                ):
                    name = f"[{there[0]}]" if family == socket.AF_INET6 else there[0]
                    found.add(f"tcp://{name}:{port}")
        subscriber = self._subscriber
        if subscriber is None or (not found and self._folder is None):
            return
        for address in found - self._known:
            subscriber.connect(address)
        for address in self._known - found:
            with suppress(zmq.ZMQError):
                subscriber.disconnect(address)
        self._known = found


def _expected(address: str) -> str:
    where = address.partition("://")[2]
    if where.startswith("/"):
        return f"replicas {address!r}: expected zmq://host:port; a folder is ipc://{where}"
    return f"replicas {address!r}: expected zmq://host:port[,host:port…], as zmq://router:5570"


_of_parents: list[object] = []
