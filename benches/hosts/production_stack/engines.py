"""Engines that answer at once, many in one process: a port each, on loopback only.

Usage: python engines.py FIRST_PORT COUNT [FAIL_SHARE]. One in 1/FAIL_SHARE requests is reset
after its first bytes, or before them, in turn.
"""

import asyncio
import json
import sys

_BODY = json.dumps(
    {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok " * 16}}],
        "usage": {
            "prompt_tokens": 2000,
            "completion_tokens": 16,
            "total_tokens": 2016,
            "prompt_tokens_details": {"cached_tokens": 1024},
        },
    }
).encode()
_METRICS = b"vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0.0\n"


def _answer(body: bytes, kind: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


_OK, _SCRAPED = _answer(_BODY, b"application/json"), _answer(_METRICS, b"text/plain")


class Engine(asyncio.Protocol):
    """Reads requests by their content-length and answers each with the same bytes."""

    served = 0
    fail_every = 0

    def __init__(self) -> None:
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            del self._data[: end + 4 + length]
            if head.startswith(b"get"):
                self._transport.write(_SCRAPED)
                continue
            Engine.served += 1
            if Engine.fail_every and Engine.served % Engine.fail_every == 0:
                if Engine.served // Engine.fail_every % 2:
                    self._transport.write(_OK[:-20])
                    self._transport.close()
                else:
                    self._transport.abort()
                return
            self._transport.write(_OK)


async def main(first: int, count: int, fail_share: float) -> None:
    """Serve until killed."""
    Engine.fail_every = round(1 / fail_share) if fail_share else 0
    loop = asyncio.get_running_loop()
    for port in range(first, first + count):
        await loop.create_server(Engine, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float((*sys.argv, "0")[3])))
