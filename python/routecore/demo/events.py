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

from routecore.demo.scheduler import BLOCK_TOKENS, Sequence

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
        self.address = f"tcp://127.0.0.1:{self._live.bind_to_random_port('tcp://127.0.0.1')}"
        port = self._replay.bind_to_random_port("tcp://127.0.0.1")
        self.replay = f"tcp://127.0.0.1:{port}"
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ring: deque[tuple[bytes, bytes]] = deque(maxlen=_RING)
        self._thread = threading.Thread(target=self._run, name="kv-publisher", daemon=True)
        self._thread.start()

    def publish(self, events: list[dict[str, Any]]) -> None:
        """Send a batch; returns at once."""
        self._queue.put(msgspec.msgpack.encode([time.time(), events, 0]))

    def log(self) -> "BlockLog":
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


class BlockLog:
    """Collects what happens to the blocks of a cache, and publishes it.

    Args:
        publisher: Where batches go.
    """

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher
        self._events: list[dict[str, Any]] = []
        self._last: tuple[Sequence, int] | None = None

    def stored(self, sequence: Sequence, index: int) -> None:
        """The cache took a block of a prompt that it did not have."""
        tokens = sequence.token_ids[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS].tolist()
        if self._last != (sequence, index - 1):
            self._events.append(
                {
                    "type": "BlockStored",
                    "block_hashes": [],
                    "parent_block_hash": sequence.keys[index - 1] if index else None,
                    "token_ids": [],
                    "block_size": BLOCK_TOKENS,
                    "medium": "GPU",
                    "extra_keys": None,
                    "group_idx": 0,
                    "kv_cache_spec_kind": "full_attention",
                }
            )
        self._events[-1]["block_hashes"].append(sequence.keys[index])
        self._events[-1]["token_ids"].extend(tokens)
        self._last = (sequence, index)

    def evicted(self, key: int) -> None:
        """The cache gave a block up. Blocks of answers, below 0, were never told of."""
        if key >= 0:
            self._events.append(
                {"type": "BlockRemoved", "block_hashes": [key], "medium": "GPU", "group_idx": 0}
            )
            self._last = None

    def cleared(self) -> None:
        """The cache was emptied."""
        self._events.append({"type": "AllBlocksCleared"})
        self._last = None

    def flush(self) -> None:
        """Publish what was collected."""
        if self._events:
            self._publisher.publish(self._events)
            self._events, self._last = [], None
