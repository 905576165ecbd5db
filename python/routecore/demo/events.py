"""KV-cache events of a simulated engine, on real ZMQ sockets, as vLLM's publisher sends them."""

import queue
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec
import zmq

from routecore.demo.block_log import BlockLog

_RING = 10_000  # messages that a replay can give
_END = b"\xff" * 8


class EventPublisher:
    """Publishes batches from a thread of its own, and answers replays, on free loopback ports.

    Args:
        context: Of the sockets.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._live, self._replay = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        for socket in (self._live, self._replay):
            socket.setsockopt(zmq.LINGER, 0)
        self.address: str = f"tcp://127.0.0.1:{self._live.bind_to_random_port('tcp://127.0.0.1')}"
        port = self._replay.bind_to_random_port("tcp://127.0.0.1")
        self.replay: str = f"tcp://127.0.0.1:{port}"
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ring: deque[tuple[bytes, bytes]] = deque(maxlen=_RING)
        self._thread = threading.Thread(target=self._run, name="kv-publisher", daemon=True)
        self._thread.start()

    def publish(self, events: list[dict[str, Any]]) -> None:
        """Send a batch; returns at once."""
        self._queue.put(msgspec.msgpack.encode([time.time(), events, 0]))

    def log(self) -> BlockLog:
        """Where a cache tells what happens to its blocks."""
        return BlockLog(self)

    def close(self) -> None:
        """Send what waits, then close the sockets."""
        self._queue.put(None)
        self._thread.join(5.0)

    def _run(self) -> None:
        seq = 0
        while True:
            with suppress(queue.Empty):
                payload = self._queue.get(timeout=0.02)
                if payload is None:
                    break
                number = struct.pack(">Q", seq)
                seq += 1
                self._ring.append((number, payload))
                self._live.send_multipart([b"kv@demo", number, payload])
            while self._replay.poll(0):
                self._answer(self._replay.recv_multipart())
        self._live.close()
        self._replay.close()

    def _answer(self, request: list[bytes]) -> None:
        who, *_, start = request
        for number, payload in self._ring:
            if number >= start:
                self._replay.send_multipart([who, b"", b"kv@demo", number, payload])
        self._replay.send_multipart([who, b"", b"", _END, b""])
