"""Paired comparison over seeds: what is gain, what is noise, and where the knee is."""

import math

import pytest
from routecore.replay import Difference, ReplayResult, difference, generate, knee, run
from routecore.replay.differences import t95


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (60, 2.000), (10**6, 1.960)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert t95(freedom) == pytest.approx(quantile, abs=0.003)


def runs(strategy: str, seeds: int, first: int = 0) -> list[ReplayResult]:
    return [
        run(generate("documents", requests=400, seed=seed), strategy=strategy, seed=seed)
        for seed in range(first, first + seeds)
    ]


def test_a_large_gain_exceeds_noise_from_five_seeds_on() -> None:
    def gain(seeds: int) -> Difference:
        ours, theirs = runs("prefix_affinity", seeds), runs("round_robin", seeds)
        return difference(ours, theirs, "ttft_ms", "mean")

    assert gain(5).exceeds_noise
    assert gain(5).ratio + gain(5).half_width < 1
    assert not gain(4).exceeds_noise
    assert gain(1).half_width == math.inf


def test_the_same_strategy_with_other_ties_is_noise() -> None:
    ours = [
        run(generate("documents", requests=400, seed=s), strategy="least_connections", seed=s + 50)
        for s in range(6)
    ]
    found = difference(ours, runs("least_connections", 6), "ttft_ms", "mean")
    assert not found.exceeds_noise
    assert found.ratio == pytest.approx(1, abs=0.15)


def test_a_difference_below_the_noise_floor_is_never_claimed() -> None:
    ours = runs("round_robin", 5)
    assert difference(ours, ours, "e2e_ms", "mean") == Difference(
        ratio=1.0, half_width=0.0, exceeds_noise=False
    )


def test_the_knee_is_the_last_load_that_is_carried() -> None:
    assert knee({1: 100, 2: 120, 3: 290, 4: 900}) == 3
    assert knee({3: 290, 4: 900, 1: 100, 2: 120, 5: math.nan}) == 3
    assert knee({1: 100, 2: 101}) is None
    assert knee({1: 100}) is None
