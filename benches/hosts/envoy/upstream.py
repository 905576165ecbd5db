"""An engine that answers at once, or streams as the path says: /stream/CHUNKS/MILLISECONDS."""

import asyncio
import contextlib
import sys
from typing import Any

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = b'data: {"choices": [{"n": 1}]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)


class Engine(asyncio.Protocol):
    """Reads requests with a content-length or in chunks; of a body only where it ends."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.left = 0
        self.chunked = False
        self.path = ""
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.chunked:  # all that is kept is what may be the end
            self.buffer = (self.buffer + data)[-7:]
            if self.buffer.endswith(b"0\r\n\r\n"):
                self.buffer, self.chunked = b"", False
                self.answer()
            return
        if self.left:
            self.left -= len(data)
            if self.left <= 0:
                self.left = 0
                self.answer()
            return
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self.buffer[:end].lower(), self.buffer[end + 4 :]
        self.path = head.split(b" ", 2)[1].decode()
        self.buffer = b""
        if b"transfer-encoding: chunked" in head:
            self.chunked = True
            self.data_received(rest)
            return
        _, found, length = head.partition(b"content-length: ")
        self.left = int(length.split(b"\r", 1)[0]) - len(rest) if found else 0
        if self.left <= 0:
            self.left = 0
            self.answer()

    def answer(self) -> None:
        if not self.path.startswith("/stream/"):
            self.transport.write(ANSWER)
            return
        task = asyncio.ensure_future(self.stream(*map(int, self.path.split("/")[2:4])))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def stream(self, count: int, pause_ms: int) -> None:
        self.transport.write(HEAD)
        for _ in range(count):
            await asyncio.sleep(pause_ms / 1e3)
            self.transport.write(CHUNK)
        self.transport.write(b"0\r\n\r\n")


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Engine, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
    sys.exit(0)
