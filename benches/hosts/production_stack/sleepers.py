"""Engines that sleep instead of computing, in this process, and that can be made to fail.

Each answers in eight steps, streamed or not, and can be dead (connections refused, those open
reset), sick (500 at once) or slow.
"""

import asyncio
import json

STEPS = 8
_WORD = {"index": 0, "delta": {"content": "ok "}}
_PIECE = b"data: " + json.dumps({"choices": [_WORD]}).encode() + b"\n\n"
_WHOLE = json.dumps(
    {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok " * STEPS}}],
        "usage": {"prompt_tokens": 400, "completion_tokens": STEPS, "total_tokens": 400 + STEPS},
    }
).encode()
_METRICS = b"vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0.0\n"


def _answer(status: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (status, kind, len(body)) + body


_OK = _answer(b"200 OK", b"application/json", _WHOLE)
_ERROR = _answer(b"500 Internal Server Error", b"application/json", b'{"error": "sick"}')
_SCRAPED = _answer(b"200 OK", b"text/plain", _METRICS)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Sleeper:
    """One engine.

    Attributes:
        seconds: That an answer takes.
        sick: Whether it answers 500 at once.
        received: Requests so far.
        running: Requests now.
        peak: Most of them at once; for the caller to set back.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.sick = seconds, False
        self.received = self.running = self.peak = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self.open: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port each time."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Refuse connections, and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self.open):
            transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, engine: Sleeper) -> None:
        self._engine, self._data = engine, bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._engine.open.add(transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._engine.open.discard(self._transport)
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body = bytes(self._data[end + 4 : end + 4 + length])
            del self._data[: end + 4 + length]
            if head.startswith(b"get"):
                self._transport.write(_SCRAPED)
                continue
            self._engine.received += 1
            if self._engine.sick:
                self._transport.write(_ERROR)
                continue
            streamed = b'"stream": true' in body or b'"stream":true' in body
            task = asyncio.get_running_loop().create_task(self._serve(streamed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, streamed: bool) -> None:
        engine = self._engine
        engine.running += 1
        engine.peak = max(engine.peak, engine.running)
        try:
            if not streamed:
                await asyncio.sleep(engine.seconds)
                self._transport.write(_OK)
                return
            self._transport.write(_STREAM)
            for _ in range(STEPS):
                await asyncio.sleep(engine.seconds / STEPS)
                self._transport.write(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
            self._transport.write(b"0\r\n\r\n")
        finally:
            engine.running -= 1
