"""production-stack's router, stock and with routecore, under the same load on loopback.

Run with a Python that has production-stack's router and routecore installed:

    python bench.py steady      # router CPU per request over 70 s; 3 engines, 16 clients, 8 k chars
    python bench.py wide        # requests/s at 64 and 512 engines, 32 k chars
    python bench.py leaks       # RSS and requests in flight over 100,000 requests, 10 % failing

Engines, clients and router share the machine: read the ratios, and the CPU of the router alone.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).parent
_FIRST, _ROUTER = 21000, 20999
_TICKS = os.sysconf("SC_CLK_TCK")
_OURS = ["--callbacks", "routecore.integrations.production_stack.callbacks"]
KINDS = {
    "stock prefixaware": ["--routing-logic", "prefixaware"],
    "stock roundrobin": ["--routing-logic", "roundrobin"],
    "ours prefixaware": ["--routing-logic", "prefixaware", *_OURS],
    "ours roundrobin": ["--routing-logic", "roundrobin", *_OURS],
}


@contextlib.contextmanager
def fleet(kind: str, engines: int, fail_share: float = 0.0) -> Iterator[int]:
    """Engines and one router; gives the router's process id."""
    urls = ",".join(f"http://127.0.0.1:{_FIRST + at}" for at in range(engines))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    backends = subprocess.Popen(
        [sys.executable, str(_HERE / "engines.py"), str(_FIRST), str(engines), str(fail_share)]
    )
    time.sleep(1.5)
    router = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm_router.app", "--host", "127.0.0.1"),
            *("--port", str(_ROUTER), "--service-discovery", "static"),
            *("--static-backends", urls, "--static-models", ",".join(["m"] * engines)),
            *("--log-level", "warning", *KINDS[kind]),
        ],
        **quiet,  # type: ignore[arg-type]
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(_url("/health")):
                break
            if router.poll() is not None:
                sys.exit(f"{kind}: the router ended with code {router.returncode}")
            time.sleep(0.1)
        time.sleep(1.0)
        yield router.pid
    finally:
        for process in (router, backends):
            process.send_signal(signal.SIGKILL)
            process.wait()


def _url(path: str) -> str:
    return f"http://127.0.0.1:{_ROUTER}{path}"


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss(pid: int) -> float:
    """MiB that the process holds."""
    line = next(
        text for text in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in text
    )
    return int(line.split()[1]) / 1024


def metric(name: str) -> float:
    """One figure of the router's own metrics, summed over labels; NaN if it is not there."""
    with urllib.request.urlopen(_url("/metrics")) as answer:
        lines = answer.read().decode().splitlines()
    found = [float(text.rpartition(" ")[2]) for text in lines if text.startswith(name)]
    return sum(found) if found else float("nan")


def requests(chars: int, count: int = 512) -> list[bytes]:
    """Whole HTTP requests: conversations that share 16 beginnings of half their length."""
    draw = random.Random(0)
    words = [f"w{draw.randrange(9999):04d} " for _ in range(5000)]

    def text(length: int) -> str:
        return "".join(draw.choices(words, k=length // 6 + 1))[:length]

    heads = [text(chars // 2) for _ in range(16)]
    made = []
    for _ in range(count):
        content = draw.choice(heads) + text(chars - chars // 2)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: r\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        made.append((head + body).encode())
    return made


class Load:
    """Clients that each send one request after another over a connection kept open."""

    def __init__(self, bodies: list[bytes], rate: float | None = None) -> None:
        self._bodies, self._rate = bodies, rate
        self.sent = self.good = 0
        self._begin = time.perf_counter()

    async def client(self, number: int, limit: int | None, until: float | None) -> None:
        draw = random.Random(number)
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while (limit is None or self.sent < limit) and (
            until is None or time.perf_counter() < until
        ):
            self.sent += 1
            if self._rate is not None:
                due = self._begin + self.sent / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                if writer is None or reader is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", _ROUTER)
                writer.write(draw.choice(self._bodies))
                if await self._answer(reader):
                    self.good += 1
            except (OSError, asyncio.IncompleteReadError, ValueError):
                if writer is not None:
                    writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        return b" 200 " in head[:20]

    async def run(self, clients: int, *, limit: int | None = None, seconds: float | None = None):
        until = None if seconds is None else time.perf_counter() + seconds
        await asyncio.gather(*(self.client(at, limit, until) for at in range(clients)))


def steady(seconds: int, rate: float | None) -> None:
    """CPU per request, each ten seconds."""
    bodies = requests(8_000)
    for kind in ("stock roundrobin", "stock prefixaware", "ours prefixaware"):
        with fleet(kind, 3) as pid:
            load = Load(bodies, rate)

            async def watch(load: Load = load, pid: int = pid) -> list[str]:
                shown = []
                task = asyncio.create_task(load.run(16, seconds=seconds))
                for _ in range(seconds // 10):
                    used, good = cpu(pid), load.good
                    await asyncio.sleep(10)
                    done = load.good - good
                    shown.append(
                        f"{(cpu(pid) - used) / max(1, done) * 1e6:.0f} ({done / 10:.0f}/s)"
                    )
                await task
                return shown

            print(f"{kind:20} us/request: {'  '.join(asyncio.run(watch()))}", flush=True)


def wide(seconds: float) -> None:
    """Requests a second."""
    bodies = requests(32_000)
    for engines in (64, 512):
        for kind in ("stock prefixaware", "ours prefixaware", "stock roundrobin"):
            with fleet(kind, engines) as pid:
                asyncio.run(Load(bodies).run(16, seconds=3))
                load, used = Load(bodies), cpu(pid)
                asyncio.run(load.run(16, seconds=seconds))
                each = (cpu(pid) - used) / max(1, load.good) * 1e6
                rate = load.good / seconds
                print(f"{kind:20} {engines:4} engines: {rate:7.0f}/s {each:6.0f} us", flush=True)


def leaks(count: int) -> None:
    """Memory and load after many requests, one in ten of them broken by its engine."""
    bodies = requests(2_000)
    # The stock router slows down with what it keeps: a tenth shows it.
    for kind, few in (("ours prefixaware", 5), ("stock prefixaware", 50)):
        with fleet(kind, 3, 0.1) as pid:
            shown, total, good = [], 0, 0
            for _ in range(5):
                load = Load(bodies)
                asyncio.run(load.run(16, limit=count // few))
                total, good = total + load.sent, good + load.good
                shown.append(f"{rss(pid):.1f}")
            time.sleep(1)
            flight = metric("vllm:num_requests_running")
            expired = metric("routecore_leases_expired_total")
            print(
                f"{kind:20} {total} requests, {good} good; RSS MiB {' '.join(shown)}; "
                f"in flight {flight:.0f}, leases expired {expired:.0f}",
                flush=True,
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["steady", "wide", "leaks"])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, help="requests a second in all; default: as fast as")
    parser.add_argument("--requests", type=int, default=100_000)
    args = parser.parse_args()
    if args.what == "steady":
        steady(int(args.seconds or 70), args.rate)
    elif args.what == "wide":
        wide(args.seconds or 10)
    else:
        leaks(args.requests)


if __name__ == "__main__":
    main()
