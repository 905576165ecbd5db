"""What a decision by prompt costs: the match for all endpoints, the choice and the insert.

Each timed call gets a prompt that was not inserted before: heads are shared, tails are new, and
the pool of prompts is made outside the timed loop. The index is full, so that what comes in
pushes something out.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleets import endpoints_of
from pytest_benchmark.fixture import BenchmarkFixture
from routecore import ROUTERS, RequestStatsMonitor
from trie_twin import Trie, route

KIB = 1024
POOL = 6_000
# Tokens per endpoint; small, so that the pool is larger than what is held.
KV_TOKENS = 100_000


def prompts(size: int, share: float, count: int, seed: int = 1) -> list[str]:
    """Prompts of which the first `share` is one of 16 heads."""
    rng = random.Random(seed)
    head = int(size * share)
    heads = [rng.randbytes(head // 2).hex() for _ in range(16)]
    return [rng.choice(heads) + rng.randbytes((size - head) // 2).hex() for _ in range(count)]


class Ours:
    """A router, its endpoints and our monitor; requests are reported and end, as in a host."""

    def __init__(self, strategy: str, count: int, **params: Any) -> None:
        made: Any = ROUTERS[strategy]
        self.endpoints = tuple(endpoints_of(count))
        self.monitor = RequestStatsMonitor(60.0)
        self.router = made(seed=7, kv_tokens=KV_TOKENS, **params)
        self.view = self.monitor.get_request_stats(0.0)
        self.time = 0.0

    def route(self, body: dict[str, Any]) -> Any:
        """The whole call."""
        return self.router.route_request(self.endpoints, {}, self.view, None, body)

    def serve(self, body: dict[str, Any]) -> None:
        """A request from its choice to its end."""
        url = self.route(body)
        self.finish(url)

    def finish(self, url: str) -> None:
        """The last choice is reported, answered and done."""
        self.time += 0.001
        self.monitor.on_new_request(url, "r", self.time)
        self.monitor.on_request_response(url, "r", self.time)
        self.monitor.on_request_complete(url, "r", self.time)

    def hold_everywhere(self, body: dict[str, Any]) -> None:
        """All endpoints have the prompt."""
        for endpoint in self.endpoints:
            url = self.router.route_request((endpoint,), {}, self.view, None, body)
            self.finish(url)


def one_a_round(
    benchmark: BenchmarkFixture,
    call: Callable[[Any], Any],
    inputs: list[Any],
    after: Callable[[Any], None] | None = None,
) -> None:
    """One call a round, each with the next input; what follows a call is not timed."""
    following: Iterator[Any] = itertools.cycle(inputs)
    last: list[Any] = []

    def timed(item: Any) -> None:
        last[:] = [call(item)]

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        if after and last:
            after(last[0])
        return (next(following),), {}

    rounds = 1 if benchmark.disabled else min(len(inputs), 2_000)
    bench: Any = benchmark
    bench.pedantic(timed, setup=setup, rounds=rounds, iterations=1)


@pytest.mark.parametrize("who", ["core", "trie"])
@pytest.mark.parametrize("kib", [2, 32])
def test_match_choose_insert(benchmark: BenchmarkFixture, kib: int, who: str) -> None:
    benchmark.group = f"prefix_cache, whole call, {kib} KiB prompts, 64 endpoints"
    count = 64 if benchmark.disabled else POOL if kib == 2 else POOL // 3
    pool = prompts(kib * KIB, 0.5, count)
    warm, timed = pool[: count // 2], pool[count // 2 :]
    if who == "core":
        ours = Ours("prefix_cache", 64)
        for prompt in warm:
            ours.serve({"model": "m", "prompt": prompt})
        bodies = [{"model": "m", "prompt": prompt} for prompt in timed]
        one_a_round(benchmark, ours.route, bodies, ours.finish)
    else:
        trie, rng = Trie(), random.Random(7)
        urls = {endpoint.url for endpoint in endpoints_of(64)}
        for prompt in warm:
            route(trie, urls, prompt, rng)
        one_a_round(benchmark, lambda prompt: route(trie, urls, prompt, rng), timed)


@pytest.mark.parametrize("count", [8, 64, 1024])
def test_all_endpoints_share_the_prefix(benchmark: BenchmarkFixture, count: int) -> None:
    benchmark.group = "prefix_cache, whole call, 2 KiB prompts, all endpoints hold the head"
    head = random.Random(1).randbytes(KIB // 2).hex()
    ours = Ours("prefix_cache", count)
    ours.hold_everywhere({"model": "m", "prompt": head})
    rng = random.Random(2)
    bodies = [
        {"model": "m", "prompt": head + rng.randbytes(KIB // 2).hex()}
        for _ in range(8 if benchmark.disabled else 2_000)
    ]
    one_a_round(benchmark, ours.route, bodies, ours.finish)


def test_very_long_prompt(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "prefix_cache, whole call, 400,000 characters, 64 endpoints"
    ours = Ours("prefix_cache", 64)
    bodies = [
        {"model": "m", "prompt": prompt}
        for prompt in prompts(400_000, 0.9, 2 if benchmark.disabled else 200)
    ]
    for body in bodies[: len(bodies) // 2]:
        ours.serve(body)
    one_a_round(benchmark, ours.route, bodies[len(bodies) // 2 :], ours.finish)


@pytest.mark.parametrize("strategy", ["prefix_cache", "expected_latency"])
def test_choice_on_top_of_the_match(benchmark: BenchmarkFixture, strategy: str) -> None:
    benchmark.group = "whole call, 2 KiB prompts, 64 endpoints, by strategy"
    ours = Ours(strategy, 64)
    count = 64 if benchmark.disabled else POOL
    bodies = [{"model": "m", "prompt": prompt} for prompt in prompts(2 * KIB, 0.5, count)]
    for body in bodies[: count // 2]:
        ours.serve(body)
    one_a_round(benchmark, ours.route, bodies[count // 2 :], ours.finish)


@pytest.mark.parametrize("block_chars", [64, 128, 256, 512])
@pytest.mark.parametrize("kib", [2, 32])
def test_block_size(benchmark: BenchmarkFixture, kib: int, block_chars: int) -> None:
    """Of a head of random length half a block is lost on average: 8 to 64 tokens of 4 bytes."""
    benchmark.group = f"prefix_cache, whole call, {kib} KiB prompts, by characters of a block"
    ours = Ours("prefix_cache", 64, block_chars=block_chars)
    count = 64 if benchmark.disabled else POOL // 3
    bodies = [{"model": "m", "prompt": prompt} for prompt in prompts(kib * KIB, 0.5, count)]
    for body in bodies[: count // 2]:
        ours.serve(body)
    one_a_round(benchmark, ours.route, bodies[count // 2 :], ours.finish)


TOKEN_IDS = list(range(2_048 * 16))


@pytest.mark.parametrize("who", ["core", "SelectionService, token ids", "SelectionService, hashes"])
def test_token_ids(benchmark: BenchmarkFixture, who: str) -> None:
    """NVIDIA Dynamo's selection from Python (extra `bench-peers`): no booking, an empty index."""
    benchmark.group = "2,048 blocks of 16 token ids, 16 endpoints"
    if who == "core":
        ours = Ours("dynamo_cost", 16)
        one_a_round(benchmark, ours.route, [{"prompt": TOKEN_IDS}] * 1_000, ours.finish)
        return
    os.environ.setdefault("DYN_LOG", "error")
    core = pytest.importorskip("dynamo._core", exc_type=ImportError)
    asked = {"model_name": "m", "token_ids": TOKEN_IDS}
    if who.endswith("hashes"):
        numbers = list(range(2_048))
        asked = {"model_name": "m", "block_hashes": numbers, "sequence_hashes": numbers}
        asked["isl_tokens"] = len(TOKEN_IDS)
    with asyncio.Runner() as runner:
        service = runner.run(selection_service(core, 16))

        async def hundred() -> None:
            for _ in range(100):
                await service.select(asked)

        benchmark.extra_info["selections a round"] = 100
        bench: Any = benchmark
        rounds = 1 if benchmark.disabled else 10
        bench.pedantic(lambda: runner.run(hundred()), rounds=rounds, iterations=1)
        service.shutdown()


async def selection_service(core: Any, count: int) -> Any:
    """Workers registered as its router wants them; nobody publishes events there."""
    service = core.SelectionService(indexer_threads=2)
    for i in range(count):
        await service.upsert_worker(
            {
                "worker_id": i,
                "model_name": "m",
                "endpoint": f"http://127.0.0.1:{9000 + i}",
                "block_size": 16,
                "kv_events_endpoint": f"tcp://127.0.0.1:{45000 + i}",
                "total_kv_blocks": 25_000,
            }
        )
    return service
