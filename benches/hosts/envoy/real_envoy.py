"""What the picker costs behind the real Envoy: latency, requests a second, a storm, memory.

    python benches/hosts/envoy/real_envoy.py [latency decision rate storm memory]

Engines, Envoy (one thread), picker and client are processes of this machine, and share its cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from routecore.demo.envoy import Envoy
from routecore.integrations.envoy.bootstrap import bootstrap
from routecore.integrations.envoy.settings import load

HERE = Path(__file__).parent
SIZES = (2_000, 131_000)


def body(size: int, number: int = 0) -> bytes:
    text = f"question {number} of a user about a document. " * (size // 30)
    messages = [{"role": "system", "content": text[: size - 100]}, {"role": "user", "content": "?"}]
    return json.dumps({"model": "m", "messages": messages}).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def engines(count: int) -> Iterator[list[tuple[int, subprocess.Popen[str]]]]:
    made = []
    try:
        for _ in range(count):
            words = [sys.executable, str(HERE / "upstream.py")]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            made.append((int(process.stdout.readline()), process))
        yield made
    finally:
        for _, process in made:
            process.kill()
            process.wait()


class Bench:
    """A picker process and its Envoys.

    Args:
        client: For Envoy's and the picker's own pages.
        ports: The engines'.
        workers: Of the picker.
    """

    def __init__(self, client: aiohttp.ClientSession, ports: list[int], workers: int = 1) -> None:
        self.client, self.workers = client, workers
        self.metrics = free_port()
        self.given = {
            "endpoints": ",".join(f"127.0.0.1:{port}" for port in ports),
            "listen": f"127.0.0.1:{free_port()}",
            "scrape_every": 0,
            "workers": workers,
            "metrics_port": self.metrics,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Bench"]:
        words = [sys.executable, "-m", "routecore", "picker", "--quiet"]
        for name in ("endpoints", "listen", "workers", "metrics_port"):
            words += ["--" + name.replace("_", "-"), str(self.given[name])]
        env = {**os.environ, "ROUTECORE_SCRAPE_EVERY": "0", "ROUTECORE_DRAIN_DELAY": "0"}
        env["ROUTECORE_DRAIN_TIMEOUT"] = "1"
        self.process = subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL)
        try:
            host, _, port = str(self.given["listen"]).partition(":")
            for number in range(self.workers):
                await listening(host, self.metrics + number)
            await listening(host, int(port))
            yield self
        finally:
            self.process.terminate()
            self.process.wait(30)

    @contextlib.asynccontextmanager
    async def envoy(
        self, *, asks: bool = True, buffered: bool = False, concurrency: int = 1
    ) -> AsyncIterator[Envoy]:
        made = bootstrap(
            load(self.given, {}), port=0, address="127.0.0.1", admin=0, buffered=buffered
        )
        if not asks:
            listener = made["static_resources"]["listeners"][0]
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            del manager["http_filters"][0]
        envoy = Envoy(made)
        try:
            await envoy.start(self.client)
            await self.warm(envoy)
            yield envoy
        finally:
            envoy.stop()

    async def warm(self, envoy: Envoy) -> None:
        """Until requests are served: Envoy must find the picker well first."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            async with self.client.post(envoy.url, data=body(500)) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)
        raise SystemExit("no request is served")

    async def figure(self, name: str) -> float:
        """A figure of the picker's metrics, summed over its workers."""
        total = 0.0
        for number in range(self.workers):
            url = f"http://127.0.0.1:{self.metrics + number}/metrics"
            async with self.client.get(url) as answer:
                text = await answer.text()
            found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
            total += sum(map(float, found))
        return total


async def listening(host: str, port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


class Connection:
    """A client of HTTP/1 that costs next to nothing."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def post(self, content: bytes, path: str = "/v1/chat/completions") -> int:
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        await self.reader.readexactly(length)
        return int(answer[9:12])

    def close(self) -> None:
        self.writer.close()


async def latency(client: aiohttp.ClientSession, seconds: float) -> None:
    """Time added at one request at a time: requests with and without a picker take turns."""
    async with AsyncExitStack() as stack:
        up = stack.enter_context(engines(2))
        made = Bench(client, [port for port, _ in up])
        bench = await stack.enter_async_context(made.running())
        ways = {
            "none": await stack.enter_async_context(bench.envoy(asks=False)),
            "FULL_DUPLEX": await stack.enter_async_context(bench.envoy()),
            "BUFFERED": await stack.enter_async_context(bench.envoy(buffered=True)),
        }
        for size in SIZES:
            await _latency(bench, ways, size, seconds)


async def _latency(bench: Bench, ways: dict[str, Envoy], size: int, seconds: float) -> None:
    connections = {name: Connection(envoy.url) for name, envoy in ways.items()}
    for connection in connections.values():
        await connection.open()
    content = body(size)
    times: dict[str, list[float]] = {name: [] for name in ways}
    before = await bench.figure("routecore_decision_seconds_sum")
    count = await bench.figure("routecore_decision_seconds_count")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, connection in connections.items():
            start = time.perf_counter()
            assert await connection.post(content) == 200
            times[name].append(time.perf_counter() - start)
    spent = await bench.figure("routecore_decision_seconds_sum") - before
    count = await bench.figure("routecore_decision_seconds_count") - count
    base = statistics.median(times["none"])
    for name in ways:
        if name != "none":
            added = 1e3 * (statistics.median(times[name]) - base)
            print(
                f"latency  {size:>7,} B {name:12} p50 +{added:.2f} ms (none: {1e3 * base:.2f} ms), "
                f"{len(times[name])} requests; the strategy {1e6 * spent / count:.0f} µs mean"
            )
    for connection in connections.values():
        connection.close()


async def decision(_client: aiohttp.ClientSession, seconds: float) -> None:
    """Reading a body and choosing, in this process."""
    from routecore.integrations.envoy.decision import Picker
    from routecore.integrations.envoy.endpoints.address import read

    for endpoints in (2, 8, 64):
        given = {"endpoints": "10.0.0.1:80", "scrape_every": 0, "params": {"seed": 1}}
        picker = Picker(load(given, {}))
        picker.pool.update({read(f"10.0.0.{n}:80"): True for n in range(endpoints)})
        for size in SIZES:
            contents = [body(size, n) for n in range(50)]
            times = []
            end = time.perf_counter() + seconds / 2
            number = 0
            while time.perf_counter() < end:
                content = contents[number % 50]
                start = time.perf_counter()
                pick = await picker.pick(str(number), None, None, content)
                times.append(time.perf_counter() - start)
                picker.monitor.on_request_complete(pick.url, str(number), time.time(), 200)
                number += 1
            print(
                f"decision {size:>7,} B {endpoints:>3} endpoints: "
                f"{1e6 * statistics.median(times):.0f} µs p50, reading the JSON included"
            )


async def rate(client: aiohttp.ClientSession, seconds: float) -> None:
    """Requests a second, 16 at a time."""
    with engines(2) as up:
        ports = [port for port, _ in up]
        for workers in (1, 2):
            async with Bench(client, ports, workers).running() as bench:
                for buffered in (False, True):
                    async with bench.envoy(buffered=buffered) as envoy:
                        for size in SIZES:
                            before = cpu(bench.process.pid)
                            found, done = await _rate(envoy, body(size), seconds)
                            spent = 1e3 * (cpu(bench.process.pid) - before) / done
                            mode = "BUFFERED" if buffered else "FULL_DUPLEX"
                            print(
                                f"rate     {size:>7,} B {mode:12} {workers} workers: "
                                f"{found:.0f}/s, {spent:.2f} ms of the picker's CPU each"
                            )


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children that live."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(cpu(int(child)) for child in children)


async def _rate(
    envoy: Envoy, content: bytes, seconds: float, clients: int = 16
) -> tuple[float, int]:
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

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return done / (time.perf_counter() - start), done


async def storm(client: aiohttp.ClientSession, _seconds: float) -> None:
    """1,000 streams at once, a tenth aborted, an engine dying."""
    chance = random.Random(1)
    ends = dict.fromkeys(("whole", "error", "broken", "aborted"), 0)
    async with AsyncExitStack() as stack:
        up = stack.enter_context(engines(4))
        made = Bench(client, [port for port, _ in up])
        bench = await stack.enter_async_context(made.running())
        envoy = await stack.enter_async_context(bench.envoy())

        async def one(abort: bool) -> None:
            try:
                answer = await client.post(f"{envoy.url}/stream/40/100", data=body(2_000))
                if abort:
                    await answer.content.readany()
                    answer.close()
                    ends["aborted"] += 1
                    return
                await answer.read()
                ends["whole" if answer.status == 200 else "error"] += 1
            except aiohttp.ClientError:
                ends["broken"] += 1

        tasks = [asyncio.create_task(one(chance.random() < 0.1)) for _ in range(1000)]
        await asyncio.sleep(2)
        peak = await bench.figure("routecore_in_flight_requests")
        up[0][1].kill()
        await asyncio.wait_for(asyncio.gather(*tasks), 120)
        await asyncio.sleep(0.5)
        left = await bench.figure("routecore_in_flight_requests")
        streams = await bench.figure("routecore_picker_streams")
    print(f"storm    {ends}; in flight {peak:.0f} before, {left:.0f} after; streams {streams:.0f}")


async def memory(client: aiohttp.ClientSession, _seconds: float) -> None:
    """What a body of 20 MB takes."""
    async with AsyncExitStack() as stack:
        up = stack.enter_context(engines(2))
        made = Bench(client, [port for port, _ in up])
        bench = await stack.enter_async_context(made.running())
        envoy = await stack.enter_async_context(bench.envoy())
        content = body(20_000_000)
        before = _memory(bench.process.pid, "VmRSS")
        Path(f"/proc/{bench.process.pid}/clear_refs").write_text("5")
        connection = Connection(envoy.url)
        await connection.open()
        start = time.perf_counter()
        assert await connection.post(content) == 200
        took = time.perf_counter() - start
        peak = _memory(bench.process.pid, "VmHWM")
    times = (peak - before) / (len(content) / 1e6)
    print(
        f"memory   20 MB: {before:.0f} MB before, {peak:.0f} MB at most: {times:.2f} x the body; "
        f"{took:.2f} s"
    )


def _memory(pid: int, name: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024 / 1e6


PARTS: dict[str, Any] = {
    "latency": latency,
    "decision": decision,
    "rate": rate,
    "storm": storm,
    "memory": memory,
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        for name in given.parts or PARTS:
            await PARTS[name](client, given.seconds)


if __name__ == "__main__":
    asyncio.run(main())
