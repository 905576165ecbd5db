"""production-stack's router, stock and with routecore, before engines that fail.

Run with a Python that has production-stack's router and routecore installed:

    python failing.py killed      # one of four refuses connections
    python failing.py sick        # one of four answers 500 at once, then is well again
    python failing.py flapping    # one of four is dead every other second
    python failing.py all_dead    # all four die, and come back one after the other
    python failing.py leaving     # half of the clients leave in the middle of a stream
    python failing.py slow        # one of four takes ten times as long
    python failing.py all

Four engines that take 0.4 s a request, open loop; chat with 16 shared beginnings of 1,500
characters. The host's failover is off. The engines sleep: a busy machine matters little.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from sleepers import Sleeper

_SECONDS = 0.4
_OURS = ("--callbacks", "routecore.integrations.production_stack.callbacks")
_PD = (
    *("--routing-logic", "disaggregated_prefill_orchestrated"),
    *("--prefill-model-labels", "p", "--decode-model-labels", "d"),
    *("--static-model-labels", "p,p,d,d"),
)
_SESSION = ("--routing-logic", "session", "--session-key", "x-user-id")


@dataclass
class Kind:
    """A router to measure."""

    name: str
    flags: tuple[str, ...]
    strategy: str | None = None
    ours: bool = True
    pairs: bool = False


def _kinds() -> list[Kind]:
    logics = {
        "roundrobin": ("--routing-logic", "roundrobin"),
        "session": _SESSION,
        "prefixaware": ("--routing-logic", "prefixaware"),
        "orchestrated": _PD,
    }
    made = []
    for name, flags in logics.items():
        pairs = name == "orchestrated"
        made.append(Kind(f"stock {name}", flags, ours=False, pairs=pairs))
        made.append(Kind(f"ours {name}", (*flags, *_OURS), pairs=pairs))
    for strategy in ("prefix_cache", "expected_latency", "least_connections"):
        flags = (*logics["prefixaware"], *_OURS)
        made.append(Kind(f"ours prefixaware, {strategy}", flags, strategy))
    return made


@dataclass
class Tally:
    """What became of the requests of a phase."""

    sent: int = 0
    good: int = 0
    left: int = 0
    seconds: list[float] = field(default_factory=list)
    good_at: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Neither served nor left by the client."""
        return self.sent - self.good - self.left

    @property
    def mean(self) -> float:
        """Mean latency of those served, in milliseconds."""
        return 1e3 * sum(self.seconds) / max(1, len(self.seconds))

    @property
    def p99(self) -> float:
        """99th percentile of it."""
        ordered = sorted(self.seconds) or [0.0]
        return 1e3 * ordered[int(0.99 * (len(ordered) - 1))]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Bench:
    """Engines, a router in a process of its own, and clients."""

    def __init__(self, url: str, engines: list[Sleeper], client: aiohttp.ClientSession) -> None:
        self._url, self.engines, self._client = url, engines, client
        self._draw = random.Random(0)
        words = [f"w{self._draw.randrange(9999):04d} " for _ in range(5000)]
        self._heads = ["".join(self._draw.choices(words, k=250)) for _ in range(16)]
        self._users = itertools.count()

    async def load(
        self, rate: float, seconds: float, *, stream: bool = False, leaving: float = 0.0
    ) -> Tally:
        """Send at a rate; gives what became of all that was sent."""
        tally, begin = Tally(), time.perf_counter()
        tasks = []
        for n in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + n / rate - time.perf_counter()))
            leaves = self._draw.random() < leaving
            tasks.append(asyncio.create_task(self._ask(tally, stream, leaves)))
        await asyncio.gather(*tasks)
        return tally

    async def _ask(self, tally: Tally, stream: bool, leaves: bool) -> None:
        tally.sent += 1
        text = self._draw.choice(self._heads) + f" {self._draw.random()}" * 10
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        user = {"x-user-id": f"user {next(self._users) % 64}"}
        begin = time.perf_counter()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._client.post(
                self._url + "/v1/chat/completions", json=body, headers=user
            ) as answer:
                if leaves:
                    await answer.content.readany()
                    tally.left += 1
                    answer.close()
                    return
                content = await answer.read()
                if answer.status == 200 and b"choices" in content:
                    tally.good += 1
                    tally.seconds.append(time.perf_counter() - begin)
                    tally.good_at.append(time.perf_counter())

    def count(self) -> list[int]:
        """Requests that each engine has received."""
        return [engine.received for engine in self.engines]


@contextlib.asynccontextmanager
async def bench(kind: Kind) -> AsyncIterator[Bench]:
    """Everything started, and warm."""
    engines = [Sleeper(_SECONDS) for _ in range(4)]
    for engine in engines:
        await engine.start()
    port = _free_port()
    names = {"ROUTECORE_STRATEGY": kind.strategy} if kind.strategy else {}
    router = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vllm_router.app", "--host", "127.0.0.1", "--port", str(port)),
        *("--service-discovery", "static", "--log-level", "error"),
        *("--static-backends", ",".join(engine.url for engine in engines)),
        *("--static-models", "m,m,m,m", *kind.flags),
        env={**os.environ, **names},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            made = Bench(f"http://127.0.0.1:{port}", engines, client)
            for _ in range(600):
                if router.returncode is not None:
                    sys.exit(f"{kind.name}: the router ended with code {router.returncode}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"http://127.0.0.1:{port}/health"):
                        break
                await asyncio.sleep(0.1)
            await made.load(40, 3)
            yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            router.kill()
        await router.wait()
        for engine in engines:
            engine.kill()


def _shares(before: list[int], after: list[int]) -> str:
    got = [b - a for a, b in zip(before, after, strict=True)]
    return " / ".join(f"{n / max(1, sum(got)):.2f}" for n in got)


async def killed(kind: Kind, b: Bench) -> str:
    """60 requests/s for 8 s from the moment at which one engine is gone."""
    b.engines[0].kill()
    tally = await b.load(60, 8)
    shown = f"{tally.failed} of {tally.sent} failed"
    if kind.pairs:
        await b.engines[0].start()
        await b.load(20, 5)
        b.engines[2].kill()
        tally = await b.load(60, 8)
        shown += f"; the decoding engine: {tally.failed} of {tally.sent}"
    return shown


async def sick(_kind: Kind, b: Bench) -> str:
    """40 requests/s; 6 s of 500s; 10 s well; then 10 s that count."""
    before = await b.load(40, 6)
    b.engines[1].sick = True
    during = await b.load(40, 6)
    b.engines[1].sick = False
    await b.load(40, 10)
    start = b.count()
    after = await b.load(40, 10)
    return (
        f"{during.failed} of {during.sent} failed; 10 s later {_shares(start, b.count())}, "
        f"mean {before.mean:.0f} -> {after.mean:.0f} ms"
    )


async def flapping(_kind: Kind, b: Bench) -> str:
    """40 requests/s for 12 s."""

    async def flap() -> None:
        for _ in range(6):
            b.engines[1].kill()
            await asyncio.sleep(1)
            await b.engines[1].start()
            await asyncio.sleep(1)

    task = asyncio.create_task(flap())
    tally = await b.load(40, 12)
    await task
    return f"{tally.failed} of {tally.sent} failed ({tally.failed / tally.sent:.1%})"


async def all_dead(_kind: Kind, b: Bench) -> str:
    """20 requests/s; all dead for 5 s; one back, the others a second later.

    A refused connection costs the host much more of its CPU than a request that is served.
    """
    load = asyncio.create_task(b.load(20, 14))
    await asyncio.sleep(2)
    for engine in b.engines:
        engine.kill()
    await asyncio.sleep(5)
    for engine in b.engines:
        engine.peak = 0
    back = time.perf_counter()
    await b.engines[0].start()
    await asyncio.sleep(1)
    alone = b.engines[0].peak
    for engine in b.engines[1:]:
        await engine.start()
    await asyncio.sleep(3)
    start, steady = b.count(), time.perf_counter()
    tally = await load
    first = min((at for at in tally.good_at if at > back), default=float("inf")) - back
    return (
        f"first success {first:.2f} s after the return; the first engine had {alone} at once "
        f"while alone; last {time.perf_counter() - steady:.0f} s {_shares(start, b.count())}"
    )


async def leaving(_kind: Kind, b: Bench) -> str:
    """40 streams/s for 10 s, half of them left after the first token."""
    start = b.count()
    tally = await b.load(40, 10, stream=True, leaving=0.5)
    return f"{tally.failed} of {tally.sent} failed, {tally.left} left; {_shares(start, b.count())}"


async def slow(_kind: Kind, b: Bench) -> str:
    """40 requests/s; one engine ten times slower; from 10 s on."""
    before = await b.load(40, 6)
    b.engines[1].seconds *= 10
    await b.load(40, 10)
    start = b.count()
    after = await b.load(40, 6)
    return (
        f"10 s later {_shares(start, b.count())}, p50 of all "
        f"{sorted(before.seconds)[len(before.seconds) // 2] * 1e3:.0f} -> "
        f"{sorted(after.seconds)[len(after.seconds) // 2] * 1e3:.0f} ms; {after.failed} failed"
    )


_WHAT: dict[str, Callable[[Kind, Bench], Awaitable[str]]] = {
    do.__name__: do for do in (killed, sick, flapping, all_dead, leaving, slow)
}


async def run(names: list[str], kinds: list[Kind]) -> None:
    """Each scenario with each router that it is asked of."""
    for name in names:
        for kind in kinds:
            if kind.pairs and name not in ("killed", "sick"):
                continue
            async with bench(kind) as made:
                print(f"{name:9} {kind.name:36} {await _WHAT[name](kind, made)}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="+", choices=[*_WHAT, "all"])
    parser.add_argument("--only", default="", help="routers whose name contains this")
    args = parser.parse_args()
    names = list(_WHAT) if "all" in args.what else args.what
    asyncio.run(run(names, [kind for kind in _kinds() if args.only in kind.name]))


if __name__ == "__main__":
    main()
