"""Strategies against each other over several seeds: paired ratios, and what is only noise."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import msgspec

from routecore.replay.result import ReplayResult

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; 1.96 is their limit.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042),
)
FLOOR = {"mean": 0.03, "p99": 0.06}
"""Smaller differences come from tie-breaks alone (placebo runs over 216 cells): never claimed."""
LEAST_SEEDS = 5
"""Below this many seeds no difference is called more than noise."""


def t95(freedom: int) -> float:
    """Student's t for a two-sided 95 % interval; between the table and its limit, from above."""
    if freedom < 1:
        return math.inf
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.5 / freedom


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one strategy against the reference's, paired by seed.

    Attributes:
        ratio: Mean over seeds of ours / theirs; below 1 is better.
        half_width: Half of the ratio's 95 % interval (Student's t); infinite for one seed.
        exceeds_noise: At least 5 seeds, 1 outside the interval, and the difference above the
            noise floor of 3 % (means) or 6 % (p99).
    """

    ratio: float
    half_width: float
    exceeds_noise: bool


def difference(
    ours: Sequence[ReplayResult], reference: Sequence[ReplayResult], figure: str, part: str
) -> Difference:
    """Compare runs that are paired by seed.

    Args:
        ours: One run a seed.
        reference: The reference's runs with the same seeds, in the same order.
        figure: "ttft_ms", "tpot_ms" or "e2e_ms".
        part: "mean" or "p99".
    """

    def values(results: Sequence[ReplayResult]) -> list[float]:
        return [float(getattr(getattr(result, figure), part)) for result in results]

    return paired(values(ours), values(reference), FLOOR[part])


def paired(
    ours: Sequence[float], reference: Sequence[float], floor: float = FLOOR["mean"]
) -> Difference:
    """Compare a figure that was measured once a seed; less than `floor` is noise."""
    ratios = [a / b for a, b in zip(ours, reference, strict=True) if b > 0]
    if not ratios:
        return Difference(ratio=math.nan, half_width=math.inf, exceeds_noise=False)
    ratio, n = fmean(ratios), len(ratios)
    width = t95(n - 1) * stdev(ratios) / math.sqrt(n) if n > 1 else math.inf
    off = abs(ratio - 1)
    clear = n >= LEAST_SEEDS and off > width and off > floor
    return Difference(ratio=ratio, half_width=width, exceeds_noise=clear)


def blend(ttft_ms: float, e2e_ms: float) -> float:
    """What "best" means where nothing else is asked for: the geometric mean of the two means, so
    that 10 % of one weighs as much as 10 % of the other.
    """
    return math.sqrt(ttft_ms * e2e_ms)


def knee(ttft_by_speedup: Mapping[float, float]) -> float | None:
    """The highest speed-up before mean TTFT exceeds three times its value at the lowest one.

    Args:
        ttft_by_speedup: Mean TTFT of each load of a sweep.

    Returns:
        None where the sweep has less than two loads, or ends before the knee.
    """
    loads = sorted(ttft_by_speedup)
    if len(loads) < 2:
        return None
    limit = 3 * ttft_by_speedup[loads[0]]
    carried = loads[0]
    for load in loads[1:]:
        if not ttft_by_speedup[load] <= limit:
            return carried
        carried = load
    return None
