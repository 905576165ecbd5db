"""The comparison as rows: a strategy at one load, and the order of the strategies there."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import msgspec

from routecore.replay.differences import Difference, blend, difference, knee
from routecore.replay.result import ReplayResult, without_nan

REFERENCE = "round_robin"
_LOST = 1e-3
"""A strategy that loses this share of the requests more than another is placed behind it."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy at one load: means over the seeds, and its gain over the baseline.

    Attributes:
        against: Figure ("ttft_ms.mean", …) → paired ratio to the baseline; empty where that
            was not replayed, or is this very row.
    """

    strategy: str
    speedup: float
    seeds: int
    token_hit_rate: float
    ttft_ms: dict[str, float]
    tpot_ms: dict[str, float]
    e2e_ms: dict[str, float]
    max_over_mean_load: float
    max_share: float
    goodput: float
    requests: int
    lost: int
    against: dict[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """The row, ready for JSON."""
        found: dict[str, Any] = without_nan(msgspec.to_builtins(self))
        return found


Cells = dict[tuple[float, str], list[ReplayResult]]


def cells(results: Sequence[ReplayResult]) -> Cells:
    """Runs by speed-up and strategy, seeds in order."""
    found: Cells = {}
    for result in results:
        settings = result.settings
        found.setdefault((settings.speedup, settings.strategy), []).append(result)
    return dict(sorted(found.items(), key=lambda item: item[0][0]))


def _row(runs: list[ReplayResult], reference: list[ReplayResult] | None) -> Row:
    def spread(figure: str) -> dict[str, float]:
        parts = ("mean", "p50", "p90", "p99")
        return {p: fmean(getattr(getattr(run, figure), p) for run in runs) for p in parts}

    against = {}
    if reference is not None and reference is not runs:
        for figure, part in (("ttft_ms", "mean"), ("ttft_ms", "p99"), ("e2e_ms", "mean")):
            against[f"{figure}.{part}"] = difference(runs, reference, figure, part)
    first = runs[0].settings
    return Row(
        strategy=first.strategy,
        speedup=first.speedup,
        seeds=len(runs),
        token_hit_rate=fmean(run.token_hit_rate for run in runs),
        ttft_ms=spread("ttft_ms"),
        tpot_ms=spread("tpot_ms"),
        e2e_ms=spread("e2e_ms"),
        max_over_mean_load=fmean(run.max_over_mean_load for run in runs),
        max_share=fmean(run.max_share for run in runs),
        goodput=fmean(run.goodput for run in runs),
        requests=sum(run.requests for run in runs),
        lost=sum(run.failed + run.rejected for run in runs),
        against=against,
    )


def compare(results: Sequence[ReplayResult], baseline: str = REFERENCE) -> list[Row]:
    """A row per speed-up and strategy, from runs of the same seeds in the same order.

    Args:
        results: The runs.
        baseline: Strategy that each row is compared with, as the results call it.
    """
    here = cells(results)
    return [_row(runs, here.get((load, baseline))) for (load, _), runs in here.items()]


def knees(results: Sequence[ReplayResult]) -> dict[str, float | None]:
    """Strategy → the speed-up it carries in a sweep; None where the sweep does not show it."""
    curves: dict[str, dict[float, float]] = {}
    for (load, strategy), runs in cells(results).items():
        curves.setdefault(strategy, {})[load] = fmean(run.ttft_ms.mean for run in runs)
    return {strategy: knee(curve) for strategy, curve in curves.items()}


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows of one load, best first: least `blend` of the means of TTFT and E2E.

    A strategy that loses more of the requests than another, by a thousandth of all, is placed
    behind it.
    """
    allowed = min(row.lost / max(1, row.requests) for row in rows) + _LOST

    def place(row: Row) -> tuple[bool, float]:
        found = blend(row.ttft_ms["mean"], row.e2e_ms["mean"])
        loses = row.lost / max(1, row.requests) > allowed
        return loses, found if math.isfinite(found) else math.inf

    return sorted(rows, key=place)
