"""`expected_latency` as it comes in the failure modes of routing: figures over three seeds.

The bounds are the modes' own, set before any figure was known. A mode that is missed is marked so,
strictly: whoever mends it has to take the mark away. docs/strategies.md has all figures.
"""

from collections.abc import Callable
from functools import cache
from statistics import fmean

import pytest
from replay import failure_modes as modes
from replay.failure_modes import Figures, N

SEEDS = range(3)
# Differences below come from tie-breaks alone (see routecore.replay.differences).
MEAN_NOISE, P99_NOISE = 1.03, 1.06


@cache
def mean_of(mode: Callable[..., Figures], strategy: str, *args: object) -> Figures:
    """Each figure's mean over the seeds; replayed once for all tests that judge it."""
    found = [mode(strategy, seed, *args) for seed in SEEDS]
    return {name: fmean(figures[name] for figures in found) for name in found[0]}


def ours(mode: Callable[..., Figures], *args: object) -> Figures:
    return mean_of(mode, "expected_latency", *args)


def test_a_hot_prefix_gets_more_holders() -> None:
    found = ours(modes.hot_prefix)
    assert found["holders at the end"] > found["holders, first second"]


def test_a_hot_prefix_leaves_the_load_even() -> None:
    assert ours(modes.hot_prefix)["max/mean in flight"] <= 1.5


def test_a_hot_prefix_leaves_the_tail() -> None:
    assert ours(modes.hot_prefix)["p99 against without"] <= 1.5


@pytest.mark.parametrize("routers", [1, 2, 4])
@pytest.mark.parametrize("period_ms", [0, 50, 500, 5000])
def test_stale_stats_leave_the_tail_no_worse_than_power_of_two(
    period_ms: float, routers: int
) -> None:
    bound = mean_of(modes.stale_stats, "power_of_two", period_ms, routers)["p99"]
    assert ours(modes.stale_stats, period_ms, routers)["p99"] <= P99_NOISE * bound


@pytest.mark.parametrize("routers", [1, 2, 4])
def test_stale_stats_leave_the_work_no_less_even_than_power_of_two(routers: int) -> None:
    bound = mean_of(modes.stale_stats, "power_of_two", 5000, routers)["max share of tokens"]
    assert ours(modes.stale_stats, 5000, routers)["max share of tokens"] <= MEAN_NOISE * bound


@pytest.mark.xfail(strict=True, reason="known miss: 0.16 to 0.18 against 0.13; long prompts gather")
@pytest.mark.parametrize("routers", [1, 2, 4])
def test_stale_stats_leave_shares_no_worse_than_power_of_two(routers: int) -> None:
    bound = mean_of(modes.stale_stats, "power_of_two", 5000, routers)["max share"]
    assert ours(modes.stale_stats, 5000, routers)["max share"] <= MEAN_NOISE * bound


def test_a_cold_endpoint_joins_without_harm() -> None:
    found = ours(modes.cold_start)
    assert found["p99 against without"] <= P99_NOISE
    assert found["hit dip"] <= 0.03
    assert found["moved sessions"] <= 1 / N + 0.03
    assert found["recovery s"] <= 10


def test_long_prompts_leave_short_ones_alone() -> None:
    simple = [
        mean_of(modes.long_prompts, word)["p90 of short"]
        for word in ("least_connections", "round_robin")
    ]
    assert ours(modes.long_prompts)["p90 of short"] <= min(simple)


@pytest.mark.parametrize("slower", [2, 4])
def test_slower_endpoints_are_found_out(slower: float) -> None:
    assert ours(modes.unequal_speeds, slower)["p99 against oracle"] <= P99_NOISE


def test_a_dead_endpoint_gets_nothing_and_a_restarted_one_its_share() -> None:
    found = ours(modes.failure_and_restart)
    assert found["sent to the dead"] == 0
    assert found["served after"] >= 0.5 / N


def test_what_a_restart_lost_is_forgotten() -> None:
    back = sum(modes.goes_back("expected_latency", seed) for seed in range(20))
    assert 0 < back < 20


def test_goodput_does_not_collapse_before_that_of_round_robin() -> None:
    good = "good requests a second"
    goodput = [ours(modes.thrash, size)[good] for size in (0.5, 1, 2)]
    simple = [mean_of(modes.thrash, "round_robin", size)[good] for size in (0.5, 1)]
    assert goodput == sorted(goodput, reverse=True)
    assert all(a >= b for a, b in zip(goodput, simple, strict=False)), (goodput, simple)


def test_contexts_of_twice_the_caches_do_as_well_as_with_round_robin() -> None:
    good = "good requests a second"
    assert ours(modes.thrash, 2)[good] >= mean_of(modes.thrash, "round_robin", 2)[good]


@pytest.mark.parametrize("kind", modes.RATES)
def test_sessions_stay_and_nobody_gets_it_all(kind: str) -> None:
    found = ours(modes.oscillation, kind)
    flips = mean_of(modes.oscillation, "dynamo_cost", kind)["flips a session"]
    assert found["flips a session"] <= flips
    assert found["max share"] <= 2 / N
