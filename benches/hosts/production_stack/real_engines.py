"""production-stack's router, stock and with routecore, before two real vLLM engines.

Run with a Python that has production-stack's router and routecore installed, on a quiet machine:

    python real_engines.py --engine-python VENV/bin/python --model FOLDER --rates 0.6,1.5,2.2

Chat sessions of growing context behind six shared system prompts, answers of 4 to 23 tokens, or
with `--traffic documents` questions about twelve documents. `--rates` are new sessions a second.
Each row is one run; every run's words are new, so nothing that an engine cached before is of use.
Two engines, each pinned to a core; router and clients share the cores with them, so compare rows
of one rate and seed, not figures of different machines. The engines are started as on a CPU: see
docs/engines.md for how vLLM gets there.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import aiohttp

_OURS = ("--callbacks", "routecore.integrations.production_stack.callbacks")
_PREFIX = ("--routing-logic", "prefixaware")
_EVENTS = "kv"
KINDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "stock roundrobin": (("--routing-logic", "roundrobin"), {}),
    "stock prefixaware": (_PREFIX, {}),
    "expected_latency": ((*_PREFIX, *_OURS), {"ROUTECORE_STRATEGY": "expected_latency"}),
    "expected_latency, KV events": (
        (*_PREFIX, *_OURS),
        {"ROUTECORE_STRATEGY": "expected_latency", "ROUTECORE_KV_EVENTS": _EVENTS},
    ),
    "prefix_cache": ((*_PREFIX, *_OURS), {"ROUTECORE_STRATEGY": "prefix_cache"}),
}
_ENGINE_ENV = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
WORDS = Path(__file__).read_text("utf-8").split()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Engine:
    """Where an engine answers, and where it publishes its KV events."""

    url: str
    events: str
    replay: str


@contextlib.asynccontextmanager
async def process(log: str, *command: str, **env: str) -> AsyncIterator[None]:
    """A process in a group of its own, its output in a file, ended with all its children."""
    with open(log, "wb") as out:
        started = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(started.pid, sign)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(started.wait(), 15)


async def ready(client: aiohttp.ClientSession, url: str, seconds: float, log: str) -> None:
    """Wait until the URL answers 200."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with client.get(url) as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.5)
    sys.exit(f"{url} did not answer within {seconds:g} s: see {log}")


@contextlib.asynccontextmanager
async def engine(options: argparse.Namespace, core: int) -> AsyncIterator[Engine]:
    """A vLLM engine pinned to a core."""
    port, events, replay = _free_port(), _free_port(), _free_port()
    publish = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replay}",
    }
    command = (
        *("taskset", "-c", str(core), options.engine_python),
        *("-m", "vllm.entrypoints.openai.api_server", "--model", options.model),
        *("--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", "8192", "--enforce-eager", "--dtype", options.dtype),
        *("--enable-prefix-caching", "--block-size", "32", "--max-num-seqs", "16"),
        *("--num-gpu-blocks-override", str(options.blocks), "--enable-prompt-tokens-details"),
        *("--kv-events-config", json.dumps(publish)),
    )
    async with process(f"{options.logs}/engine-{core}.log", *command, **_ENGINE_ENV):
        where = "tcp://127.0.0.1"
        yield Engine(f"http://127.0.0.1:{port}", f"{where}:{events}", f"{where}:{replay}")


@contextlib.asynccontextmanager
async def router(
    options: argparse.Namespace, kind: str, engines: list[Engine]
) -> AsyncIterator[str]:
    """The host's router with one of `KINDS`."""
    flags, env = KINDS[kind]
    env = dict(env)
    if env.get("ROUTECORE_KV_EVENTS") == _EVENTS:
        known = {e.url: {"address": e.events, "replay": e.replay} for e in engines}
        env |= {"ROUTECORE_KV_EVENTS": json.dumps(known), "ROUTECORE_TOKENIZER": options.model}
    port = _free_port()
    command = (
        *(sys.executable, "-m", "vllm_router.app", "--host", "127.0.0.1", "--port", str(port)),
        *("--service-discovery", "static"),
        *("--static-backends", ",".join(e.url for e in engines)),
        *("--static-models", ",".join("m" for _ in engines)),
        *flags,
    )
    name = kind.replace(" ", "-").replace(",", "")
    async with process(f"{options.logs}/router-{name}.log", *command, **env):
        yield f"http://127.0.0.1:{port}"


@dataclass
class Tally:
    """What came of a run."""

    ttft: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    errors: int = 0

    def row(self) -> tuple[float, float, float, float]:
        """Mean and p99 of TTFT in ms, mean of E2E in ms, token hit rate."""
        ordered = sorted(self.ttft) or [float("nan")]
        p99 = ordered[int(0.99 * (len(ordered) - 1))]
        e2e = fmean(self.e2e) if self.e2e else float("nan")
        return fmean(ordered), p99, e2e, self.cached / max(1, self.prompt)


class Traffic:
    """Sessions that arrive at a rate; the same seed gives the same ones but for a salt."""

    def __init__(self, options: argparse.Namespace, rate: float, seed: str) -> None:
        self._options, self._rate, self._seed = options, rate, seed
        self._salt = f"{seed} {time.time_ns()}"
        heads, words = (12, 1400) if options.traffic == "documents" else (6, 350)
        self._heads = [self._text(words, random.Random(f"{seed}{at}")) for at in range(heads)]
        self.tally = Tally()

    def _text(self, words: int, draw: random.Random) -> str:
        start = draw.randrange(len(WORDS))
        chosen = [WORDS[(start + at) % len(WORDS)] for at in range(words)]
        return f"[{self._salt}] " + " ".join(chosen)

    async def run(self, client: aiohttp.ClientSession, url: str, seconds: float) -> Tally:
        """Start sessions for so long; wait for the last."""
        draw, until = random.Random(self._seed), time.monotonic() + seconds
        tasks: list[asyncio.Task[None]] = []
        while time.monotonic() < until:
            talk = self._session(client, url, f"{self._seed}-{len(tasks)}", until)
            tasks.append(asyncio.create_task(talk))
            await asyncio.sleep(draw.expovariate(self._rate))
        await asyncio.gather(*tasks)
        return self.tally

    async def _session(
        self, client: aiohttp.ClientSession, url: str, seed: str, until: float
    ) -> None:
        draw = random.Random(seed)
        head = self._heads[min(int(draw.expovariate(0.6)), len(self._heads) - 1)]
        turns = draw.randrange(2, 9)
        if self._options.traffic == "documents":
            head, turns = draw.choice(self._heads), draw.randrange(1, 3)
        messages = [{"role": "system", "content": head}]
        for _ in range(turns):
            words = draw.randrange(30, 120)
            messages.append({"role": "user", "content": self._text(words, draw)})
            said = await self._ask(client, url, messages, draw.randrange(4, 24))
            messages.append({"role": "assistant", "content": said})
            if time.monotonic() > until:
                return
            await asyncio.sleep(draw.expovariate(1 / 2.5))

    async def _ask(
        self, client: aiohttp.ClientSession, url: str, messages: list[dict[str, str]], most: int
    ) -> str:
        body = {
            "model": "m",
            "messages": messages,
            "max_tokens": most,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        tally, begin, first, said = self.tally, time.perf_counter(), None, ""
        usage: dict[str, Any] = {}
        try:
            async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    tally.errors += 1
                    return "none"
                async for line in answer.content:
                    if line.startswith(b"data: {"):
                        first = first or time.perf_counter()
                        piece = json.loads(line[6:])
                        usage = piece.get("usage") or usage
                        said += "".join(c["delta"].get("content") or "" for c in piece["choices"])
        except (aiohttp.ClientError, TimeoutError):
            tally.errors += 1
            return "none"
        if first is None:
            tally.errors += 1
            return "none"
        tally.ttft.append(1e3 * (first - begin))
        tally.e2e.append(1e3 * (time.perf_counter() - begin))
        tally.prompt += usage.get("prompt_tokens", 0)
        tally.cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return said or "ok"


async def bench(options: argparse.Namespace) -> None:
    """Every kind at every rate with every seed; a line each, then means over the seeds."""
    timeout = aiohttp.ClientTimeout(total=180)
    found: dict[tuple[float, str], list[tuple[float, float, float, float]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        )
        engines = [await stack.enter_async_context(engine(options, core)) for core in (0, 1)]
        for at, one in enumerate(engines):
            await ready(client, f"{one.url}/health", 300, f"{options.logs}/engine-{at}.log")
        kinds = options.kinds or list(KINDS)
        for number, seed in enumerate(options.seeds):
            for rate in options.rates:
                # Another comes first with each seed: what drifts does not favour one of them.
                turned = kinds[number % len(kinds) :] + kinds[: number % len(kinds)]
                for kind in turned:
                    async with router(options, kind, engines) as url:
                        log = f"{options.logs}/router for {kind}"
                        await ready(client, f"{url}/v1/models", 90, log)
                        await asyncio.sleep(1.5)
                        tally = await Traffic(options, rate, seed).run(client, url, options.seconds)
                    row = tally.row()
                    found.setdefault((rate, kind), []).append(row)
                    print(_line(f"{rate:g}/s seed {seed} {kind}", row, tally), flush=True)
    print(f"\nmeans over {len(options.seeds)} seeds")
    for (rate, kind), rows in sorted(found.items()):
        means = tuple(fmean(column) for column in zip(*rows, strict=True))
        print(_line(f"{rate:g}/s {kind}", means))


def _line(name: str, row: tuple[float, ...], tally: Tally | None = None) -> str:
    ttft, p99, e2e, hit = row
    more = f"  {len(tally.ttft)} requests, {tally.errors} errors" if tally else ""
    return f"{name:45} TTFT {ttft:6.0f}  p99 {p99:7.0f}  E2E {e2e:6.0f}  hit {hit:.3f}{more}"


def main() -> None:
    """Parse the command line and run."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--engine-python", required=True, help="a Python that has vLLM")
    parse.add_argument("--model", required=True, help="folder of a small model")
    parse.add_argument("--traffic", choices=("chat", "documents"), default="chat")
    parse.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], default=[0.6])
    parse.add_argument("--seeds", type=lambda s: s.split(","), default=["a", "b"])
    parse.add_argument("--seconds", type=float, default=60.0, help="of arrivals in a run")
    parse.add_argument("--blocks", type=int, default=1000, help="KV blocks of 32 tokens an engine")
    parse.add_argument("--kinds", type=lambda s: s.split(";"), help="; between: default all")
    parse.add_argument("--dtype", default="float32", help="bfloat16 only where the CPU has it")
    parse.add_argument("--logs", default="/tmp", help="folder for the logs")
    asyncio.run(bench(parse.parse_args()))


if __name__ == "__main__":
    main()
