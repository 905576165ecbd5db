"""A whole prefix-affinity call on a long prompt, beside one xxh3 pass over the same bytes."""

import pytest
import xxhash
from fleets import endpoints_of, resident_stats_of
from pytest_benchmark.fixture import BenchmarkFixture
from routecore import PrefixAffinityRouter

PROMPT = "".join(chr(97 + i * i % 26) for i in range(32 * 1024))


@pytest.mark.parametrize("who", ["core", "xxh3 pass"])
def test_long_prompt(benchmark: BenchmarkFixture, who: str) -> None:
    benchmark.group = "prefix_affinity, 32 KiB prompt, 64 endpoints"
    if who == "core":
        endpoints = endpoints_of(64)
        stats = resident_stats_of(endpoints)
        body = {"model": "m", "prompt": PROMPT}
        router = PrefixAffinityRouter(seed=7)
        benchmark(router.route_request, endpoints, {}, stats, None, body)
    else:
        benchmark(xxhash.xxh3_64_intdigest, PROMPT.encode())
