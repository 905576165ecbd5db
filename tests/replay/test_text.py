"""The comparison as people read it in a terminal of 80 columns."""

import math

import msgspec
import pytest
from routecore import ROUTERS
from routecore.replay import generate, run
from routecore.replay.table import Row, compare, knees, ranked
from routecore.replay.text import duration, lines, verdict


def rows(*speedups: float, seeds: int = 1, requests: int = 300) -> tuple[list[str], list[Row]]:
    results = [
        run(
            generate("documents", requests=requests, seed=seed),
            strategy=strategy,
            endpoints=2,
            speedup=speedup,
            engine="qwen3-32b-h100-tp2",
            seed=seed,
        )
        for speedup in speedups
        for strategy in ("round_robin", "expected_latency", "sticky_until_saturated")
        for seed in range(seeds)
    ]
    found = compare(results)
    return list(lines(found, knees(results), results[0].settings)), found


def test_rows_are_ranked_and_fit_into_80_columns() -> None:
    text, found = rows(0.2, 4.0)
    assert max(map(len, text)) <= 80
    names = [line.split()[0] for line in text if line.split()[0] in ROUTERS]
    here = [[row for row in found if row.speedup == load] for load in (0.2, 4.0)]
    assert names == [row.strategy for load in here for row in ranked(load)]
    assert text[0] == "2 x qwen3-32b-h100-tp2, documents x0.2, 1 seed, best first"


def test_strategies_that_never_broke_are_named_as_carrying_the_most() -> None:
    text, _ = rows(0.2, 4.0)
    start = text.index("Load carried before mean TTFT triples:")
    assert text[start + 1].startswith("  > x4") or text[start + 1].startswith("  x0.2")
    carried = " ".join(text[start + 1 :])
    for name in ("round_robin", "expected_latency", "sticky_until_saturated"):
        assert name in carried


def test_a_sweep_without_stress_says_what_to_try() -> None:
    text, _ = rows(0.01, 0.02)
    assert "no strategy is stressed up to x0.02" in " ".join(text)


def test_five_seeds_mark_what_is_significant() -> None:
    few, many = rows(1.0)[0], rows(1.0, seeds=5)[0]
    assert few[-1] == "To tell gain from noise, repeat with --seeds 5."
    assert many[-1].startswith("* significant")
    assert any(line.rstrip().endswith("%*") for line in many)
    assert not any("%*" in line for line in few)


def test_a_strategy_that_loses_requests_comes_last_and_says_so() -> None:
    _, found = rows(1.0)
    best = ranked(found)[0]
    lossy = [row for row in found if row is not best]
    lossy.append(msgspec.structs.replace(best, lost=30))
    assert ranked(lossy)[-1].strategy == best.strategy


def test_the_verdict_is_a_sentence_with_round_robin_beside_it() -> None:
    _, found = rows(1.0)
    said = verdict(found)
    assert said.startswith(ranked(found)[0].strategy + " is best: mean TTFT ")
    assert "with round_robin" in said
    alone = [row for row in found if row.strategy == "round_robin"]
    assert verdict(alone).startswith("round_robin is best: mean TTFT ")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(8.123, "8.12 ms"), (241.4, "241 ms"), (2714.0, "2.71 s"), (135_000, "135 s"), (0, "0 ms")],
)
def test_durations_have_three_digits(ms: float, text: str) -> None:
    assert duration(ms) == text
    assert duration(math.nan) == "never"
