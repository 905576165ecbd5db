"""Service-level objectives of a replay: bounds on its latencies, for people and for CI."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from routecore.errors import RouteError
from routecore.replay.table import Row
from routecore.replay.text import duration

_FIGURES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2e": "e2e_ms"}
_PARTS = ("mean", "p50", "p90", "p99")
_BOUND = re.compile(r"(ttft|tpot|e2e)(?:_(mean|p50|p90|p99))?=(\d+(?:\.\d+)?)(ms|s)")


class Objective(msgspec.Struct, frozen=True):
    """One bound.

    Attributes:
        name: As it was written, such as "ttft_p99".
        figure: "ttft_ms", "tpot_ms" or "e2e_ms".
        part: "mean", "p50", "p90" or "p99".
        most_ms: What it must not exceed, in milliseconds.
    """

    name: str
    figure: str
    part: str
    most_ms: float

    def missed(self, row: Row) -> str | None:
        """What a strategy has instead, in words; None where it meets the bound."""
        found = getattr(row, self.figure)[self.part]
        if found <= self.most_ms:
            return None
        return f"{self.name} {duration(found)} > {duration(self.most_ms)}"


def objectives(text: str) -> list[Objective]:
    """Read bounds such as "ttft_p99=2s,e2e=20s"; without a part, the mean is meant.

    Raises:
        RouteError: A bound that is not of this form.
    """
    found = []
    for part in text.split(","):
        match = _BOUND.fullmatch(part.strip())
        if not match:
            raise RouteError(
                f"--slo: expected bounds such as ttft_p99=2s,e2e=20s (ttft, tpot or e2e; "
                f"{', '.join(_PARTS)}; ms or s), got {part.strip()!r}"
            )
        figure, share, number, unit = match.groups()
        name = f"{figure}_{share or 'mean'}"
        scale = 1e3 if unit == "s" else 1.0
        found.append(Objective(name, _FIGURES[figure], share or "mean", float(number) * scale))
    return found


def misses(rows: Sequence[Row], bounds: Sequence[Objective]) -> Iterator[str]:
    """A line for each row that misses a bound or lost requests."""
    for row in rows:
        found = [missed for bound in bounds if (missed := bound.missed(row))]
        if row.lost:
            found.append(f"{row.lost} of {row.requests} requests lost")
        if found:
            yield f"{row.strategy} x{row.speedup:g} misses the objective: {', '.join(found)}"
