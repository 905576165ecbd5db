"""Curves on a plane of 1000 × 1000, stretched by the page: ticks, scales, paths."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from routecore.replay.result import Floats

SIDE = 1000
LEAST = 0.5
"""Requests on average, fewer than which are drawn as none."""
LEVELS = 7
"""Shades of a picture of load, the lightest for (almost) none."""


class Tick(msgspec.Struct, frozen=True):
    """A grid line: percent from the left or the top, and what it says."""

    at: float
    label: str


class Scale(msgspec.Struct, frozen=True):
    """Values from `low` to `high` on a line of length 1, by logarithm or not."""

    low: float
    high: float
    log: bool

    def at(self, values: Any) -> Floats:
        """Where values lie; those outside lie at the ends."""
        ends = self.low, self.high
        found = np.clip(np.asarray(values, dtype=float), *ends)
        if self.log:
            found, ends = np.log(found), (math.log(self.low), math.log(self.high))
        placed: Floats = (found - ends[0]) / (ends[1] - ends[0])
        return placed

    def ticks(self) -> list[float]:
        """Round numbers, four to seven of them."""
        if self.log and self.high > 6 * self.low:
            for steps in ((1, 2, 5), (1, 3), (1,)):
                tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                found = [step * 10.0**ten for ten in tens for step in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= 6:
                    return found
            return found[:: -(-len(found) // 6)]
        rough = (self.high - self.low) / 5
        ten = 10.0 ** math.floor(math.log10(rough))
        step = next(s * ten for s in (1, 2, 2.5, 5, 10) if s * ten >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * at for at in range(first, last + 1)]


def log_scale(values: Sequence[float]) -> Scale:
    """Around all that is above 0, with some air."""
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known), max(known)
    if high < 1.5 * low:
        low, high = low / 1.3, high * 1.3
    return Scale(low / 1.08, high * 1.08, True)


def counts_scale(values: Sequence[float]) -> Scale:
    """For numbers of requests: by logarithm, all below `LEAST` at the lower end."""
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    return Scale(LEAST, 1.15 * max(most, 10 * LEAST), True)


def line(x: Floats, y: Floats) -> str:
    """A path through points on the unit square, y upwards; a gap where one is NaN."""
    parts, pen = [], "M"
    for left, up in zip((x * SIDE).tolist(), ((1 - y) * SIDE).tolist(), strict=True):
        if math.isfinite(left) and math.isfinite(up):
            parts.append(f"{pen}{left:.0f} {up:.0f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def dots(x: Floats, y: Floats) -> str:
    """The same points as lines of no length: round caps make dots that no stretching spoils."""
    pairs = zip((x * SIDE).tolist(), ((1 - y) * SIDE).tolist(), strict=True)
    return "".join(
        f"M{left:.0f} {up:.0f}h0" for left, up in pairs if math.isfinite(left) and math.isfinite(up)
    )


def shades(busy: Floats, most: float) -> list[str]:
    """A picture of load as a path for each level but the lowest, a unit a cell."""
    level = np.ceil(busy / max(most, 1e-9) * (LEVELS - 1) - 1e-9).clip(0, LEVELS - 1).astype(int)
    paths = []
    for wanted in range(1, LEVELS):
        cells = []
        for lane, row in enumerate(level):
            mine = np.flatnonzero(np.diff(np.concatenate([[0], row == wanted, [0]])))
            for start, stop in mine.reshape(-1, 2).tolist():
                cells.append(f"M{start} {lane}h{stop - start}v1h-{stop - start}z")
        paths.append("".join(cells))
    return paths
