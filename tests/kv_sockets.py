"""An engine's event sockets in the hands of a test: it says what is sent, and what is lost."""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import zmq
from kv_messages import message
from ports import free_port
from routecore.kv_events import KVEventSubscriber

END = b"\xff" * 8
_open: "WeakValueDictionary[str, Sockets]" = WeakValueDictionary()


def wait(until: Callable[[], Any], seconds: float = 30.0) -> None:
    """Until something is so; fails the test when it takes too long."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


class Sockets:
    """A PUB socket and a ROUTER that answers replays of what was published.

    Args:
        context: Of the sockets.
        topic_in_reply: Answer as vLLM 0.26 does, with a topic frame.
        ring: Messages kept for replays; None: no answers at all.
        port: Of the PUB socket; 0: a free one.
    """

    def __init__(
        self,
        context: Any,
        *,
        topic_in_reply: bool = True,
        ring: int | None = 1000,
        port: int = 0,
    ) -> None:
        self.context, self.topic_in_reply, self.ring_size = context, topic_in_reply, ring
        self.port, self.replay_port = port, 0
        self.asked: list[int] = []
        self.silent = False
        self.open()

    def open(self) -> None:
        """Bind; the same ports as before where there were some."""
        # A PUB socket that tells who subscribes.
        self.live, self.router = self.context.socket(zmq.XPUB), self.context.socket(zmq.ROUTER)
        self.live.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.subscriptions = 0
        for socket in (self.live, self.router):
            socket.setsockopt(zmq.LINGER, 0)
        self.port = _bind(self.live, self.port)
        _open[self.address] = self
        self.replay_port = _bind(self.router, self.replay_port)
        self.seq = 0
        self.ring: list[tuple[int, bytes]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Vanish."""
        self._stop = True
        self._thread.join()
        self.live.close()
        self.router.close()

    def subscribed(self) -> int:
        """How many have subscribed since it was opened."""
        while self.live.poll(0):
            self.subscriptions += self.live.recv()[:1] == b"\x01"
        return self.subscriptions

    def restart(self) -> None:
        """Another process on the same ports."""
        self.close()
        self.open()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def replay(self) -> str:
        return f"tcp://127.0.0.1:{self.replay_port}"

    @property
    def answers(self) -> bool:
        """Whether replays are answered."""
        return self.ring_size is not None and not self.silent

    def send(self, *events: Any, lost: bool = False, old: bool = False) -> None:
        """Publish a message; `lost`: it is numbered and kept, but never sent."""
        payload = message(*events, old=old, time=time.time())
        self.ring.append((self.seq, payload))
        if self.ring_size is not None:
            del self.ring[: -self.ring_size]
        if not lost:
            self.live.send_multipart([b"kv@pod@model", struct.pack(">Q", self.seq), payload])
        self.seq += 1

    def _serve(self) -> None:
        while not self._stop:
            if not self.router.poll(5):
                continue
            who, empty, start = self.router.recv_multipart()
            assert empty == b""
            self.asked.append(int.from_bytes(start))
            if not self.answers:
                continue
            topic = [b""] if self.topic_in_reply else []  # topics may be empty
            for seq, payload in self.ring:
                if seq >= self.asked[-1]:
                    answer = [who, b"", *topic, struct.pack(">Q", seq), payload]
                    self.router.send_multipart(answer)
            self.router.send_multipart([who, b"", *topic, END, b""])


def _bind(socket: Any, port: int) -> int:
    port = port or free_port()
    end = time.monotonic() + 30
    while True:  # the old socket's port is let go in the background
        try:
            socket.bind(f"tcp://127.0.0.1:{port}")
            return port
        except zmq.ZMQError:
            assert time.monotonic() < end
            time.sleep(0.01)


@contextmanager
def listening(*sources: Any, **options: Any) -> Iterator[KVEventSubscriber]:
    """A subscriber that is connected to all its sources."""
    engines = [_open[source.address] for source in sources if source.address in _open]
    before = [(engine.subscribed(), len(engine.asked)) for engine in engines]
    subscriber = KVEventSubscriber(sources, **options)
    try:
        wait(lambda: all(p["connected"] for ps in subscriber.status().values() for p in ps))
        for engine, (subscriptions, _) in zip(engines, before, strict=True):
            wait(lambda e=engine, had=subscriptions: e.subscribed() > had)  # type: ignore[misc]
        # Who connects asks for what was published before, and knows when that is all.
        for engine, (_, asked) in zip(engines, before, strict=True):
            source = next(s for s in sources if s.address == engine.address)
            if source.replay == engine.replay and engine.answers:
                wait(lambda e=engine, had=asked: len(e.asked) > had)  # type: ignore[misc]
                wait(lambda u=source.url: not any(p["resyncing"] for p in subscriber.status()[u]))  # type: ignore[misc]
        yield subscriber
    finally:
        subscriber.close()
