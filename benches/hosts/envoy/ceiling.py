"""What the picker costs beside servers that do nothing but answer, on the same requests.

    python benches/hosts/envoy/ceiling.py [--seconds N] [--beside COMMAND]

The picker and `nothing.py` (Python's gRPC with constant replies) take turns behind the real Envoy.
`--beside` names another server to compare: it is run as `COMMAND PORT FILE`, where the file has its
replies in hex, a line each: to response headers, to request headers, and the body's chunks. CPU
time of the server for each request tells them apart on a busy machine, too.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
from real_envoy import SIZES, Bench, Connection, body, cpu, engines, listening
from routecore.demo.envoy import Envoy
from routecore.integrations.envoy import responses, wire
from routecore.integrations.envoy.bootstrap import bootstrap
from routecore.integrations.envoy.settings import load

HERE = Path(__file__).parent
ROUNDS = 3


class Nothing(Bench):
    """Like a picker, with another process in its place."""

    def __init__(
        self, client: aiohttp.ClientSession, ports: list[int], words: Callable[[int], list[str]]
    ) -> None:
        super().__init__(client, ports)
        self.words = words

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Bench"]:
        host, _, port = str(self.given["listen"]).partition(":")
        self.process = subprocess.Popen(self.words(int(port)))
        try:
            await listening(host, int(port))
            yield self
        finally:
            self.process.kill()
            self.process.wait()

    @contextlib.asynccontextmanager
    async def envoy(self, **_: object) -> AsyncIterator[Envoy]:
        made = bootstrap(load(self.given, {}), port=0, address="127.0.0.1", admin=0)
        del made["static_resources"]["clusters"][1]["health_checks"]
        envoy = Envoy(made)
        try:
            await envoy.start(self.client)
            await self.warm(envoy)
            yield envoy
        finally:
            envoy.stop()


async def measure(bench: Bench, envoy: Envoy, content: bytes, seconds: float) -> float:
    """Milliseconds of the server's CPU a request, 8 at a time."""
    done = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        connection = Connection(envoy.url)
        await connection.open()
        while time.perf_counter() < end:
            assert await connection.post(content) == 200
            done += 1
        connection.close()

    before = cpu(bench.process.pid)
    await asyncio.gather(*(one() for _ in range(8)))
    return 1e3 * (cpu(bench.process.pid) - before) / done


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--beside")
    given = parser.parse_args()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
        for size in SIZES:
            with engines(2) as up, tempfile.TemporaryDirectory() as folder:
                ports = [port for port, _ in up]
                await compare(client, ports, size, given.beside, given.seconds, Path(folder))


async def compare(
    client: aiohttp.ClientSession,
    ports: list[int],
    size: int,
    beside: str | None,
    seconds: float,
    folder: Path,
) -> None:
    content, where = body(size), f"127.0.0.1:{ports[0]}"
    named = responses.destination(where, with_body=False)
    chunks = wire.chunks(wire.REQUEST_BODY, memoryview(content), 62_000)
    replies = folder / "replies"
    replies.write_text("\n".join(m.hex() for m in (responses.RESPONSE_HEADERS, named, *chunks)))
    nothing = [sys.executable, str(HERE / "nothing.py")]
    servers: dict[str, Bench] = {
        "picker": Bench(client, ports),
        "nothing in Python": Nothing(
            client, ports, lambda port: [*nothing, str(port), where, str(size)]
        ),
    }
    if beside is not None:
        words = beside.split()
        servers[words[0]] = Nothing(client, ports, lambda port: [*words, str(port), str(replies)])
    async with contextlib.AsyncExitStack() as stack:
        up = []
        for name, server in servers.items():
            bench = await stack.enter_async_context(server.running())
            up.append((name, bench, await stack.enter_async_context(bench.envoy())))
        spent: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, bench, envoy in up:
                spent[name].append(await measure(bench, envoy, content, seconds / ROUNDS))
    least = statistics.median(spent["picker"])
    for name, found in spent.items():
        each = statistics.median(found)
        print(f"ceiling  {size:>7,} B {name:20} {each:.3f} ms of CPU each, {each / least:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
