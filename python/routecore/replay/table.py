"""The comparison as rows, and as text."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import msgspec

from routecore.replay.compare import Difference, difference, knee
from routecore.replay.result import ReplayResult, without_nan

REFERENCE = "round_robin"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy at one load: means over the seeds, and its gain over round robin.

    Attributes:
        against: Figure ("ttft_ms.mean", …) → paired ratio to round robin; empty where that
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
        lost=sum(run.failed + run.rejected for run in runs),
        against=against,
    )


def compare(results: Sequence[ReplayResult]) -> list[Row]:
    """A row per speed-up and strategy, from runs of the same seeds in the same order."""
    here = cells(results)
    return [_row(runs, here.get((load, REFERENCE))) for (load, _), runs in here.items()]


def knees(results: Sequence[ReplayResult]) -> dict[str, float | None]:
    """Strategy → the speed-up it carries in a sweep; None where the sweep does not show it."""
    curves: dict[str, dict[float, float]] = {}
    for (load, strategy), runs in cells(results).items():
        curves.setdefault(strategy, {})[load] = fmean(run.ttft_ms.mean for run in runs)
    return {strategy: knee(curve) for strategy, curve in curves.items()}


def _gain(found: Difference | None) -> str:
    """A ratio as a percentage; marked where it is more than noise."""
    if found is None:
        return ""
    return f"{100 * (found.ratio - 1):+.1f}%{'*' if found.exceeds_noise else ' '}"


def lines(rows: Sequence[Row], carried: dict[str, float | None]) -> Iterator[str]:
    """The rows as a text table, times in ms; then what a sweep says of capacity."""
    wide = max(len(row.strategy) for row in rows)
    for load in dict.fromkeys(row.speedup for row in rows):
        here = [row for row in rows if row.speedup == load]
        yield f"speed-up {load:g}, {here[0].seeds} seed{'s' if here[0].seeds > 1 else ''}"
        yield (
            f"{'':{wide}}    hit    TTFT    p50    p90     p99  TPOT     E2E  E2E p99"
            "  imbal  share  TTFT vs rr  E2E vs rr"
        )
        for row in here:
            ttft, e2e = row.ttft_ms, row.e2e_ms
            yield (
                f"{row.strategy:{wide}} {100 * row.token_hit_rate:5.1f}% {ttft['mean']:7.0f} "
                f"{ttft['p50']:6.0f} {ttft['p90']:6.0f} {ttft['p99']:7.0f} "
                f"{row.tpot_ms['mean']:5.1f} {e2e['mean']:7.0f} {e2e['p99']:8.0f} "
                f"{row.max_over_mean_load:6.2f} {100 * row.max_share:5.1f}% "
                f"{_gain(row.against.get('ttft_ms.mean')):>11} "
                f"{_gain(row.against.get('e2e_ms.mean')):>10}"
                + (f"  {row.lost} lost" if row.lost else "")
            ).rstrip()
    marked = any(d.exceeds_noise for row in rows for d in row.against.values())
    if marked:
        yield "* more than noise: outside the paired 95 % interval and the noise floor"
    shown = {name: load for name, load in carried.items() if load is not None}
    if shown:
        yield "knee (last speed-up with mean TTFT within 3 times the lowest load's): " + ", ".join(
            f"{name} {load:g}" for name, load in shown.items()
        )
