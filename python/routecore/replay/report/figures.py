"""What the report shows, as plain numbers: the load it judges at, the order, curves, loads."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from routecore.replay.result import Floats, PerRequest, ReplayResult
from routecore.replay.table import REFERENCE, Row, cells, compare, knees, ranked

SHARES = np.concatenate([np.linspace(0, 0.95, 96), np.linspace(0.955, 1, 10)])
"""The shares of requests at which a distribution is drawn: finer in the tail."""
MOMENTS = 96
"""Columns of a picture of load over time."""
LANES = 32
"""Its rows at most: larger fleets are drawn as means of neighbours."""


class Figures:
    """The figures of a report.

    Attributes:
        rows: As in the JSON's "comparison".
        load: The speed-up that the report judges at: 1, the traffic as it is, where it was
            replayed; else the last one that round robin carries, or the highest of the sweep.
        ranked: The rows at that load, best first: least `blend` of the means of TTFT and E2E.
        baseline: The strategy that the others are compared with.
        reference: Its row at that load, where it was replayed.
    """

    def __init__(self, results: Sequence[ReplayResult], baseline: str = REFERENCE) -> None:
        self.baseline = baseline
        self.rows: list[Row] = compare(results, baseline)
        self.knees: dict[str, float | None] = knees(results)
        self.cells: dict[tuple[float, str], list[ReplayResult]] = cells(results)
        self.loads: list[float] = sorted({row.speedup for row in self.rows})
        self.load: float = 1.0 if 1.0 in self.loads else self.knees.get(baseline) or self.loads[-1]
        self.first: ReplayResult = results[0]
        here = [row for row in self.rows if row.speedup == self.load]
        self.ranked: list[Row] = ranked(here)
        self.reference: Row | None = next((row for row in here if row.strategy == baseline), None)

    def runs(self, strategy: str) -> list[ReplayResult]:
        """Its runs at the judged load, one a seed."""
        return self.cells[self.load, strategy]

    def curve(self, strategy: str, figure: str, part: str) -> list[float]:
        """A figure at each load; NaN where it was not replayed."""
        at = {row.speedup: row for row in self.rows if row.strategy == strategy}
        return [getattr(at[load], figure)[part] if load in at else math.nan for load in self.loads]

    def distribution(self, strategy: str, times: str) -> Floats:
        """The quantiles at `SHARES` of a figure over the requests of all seeds, ms.

        Empty where no request has the figure.
        """
        pooled = np.concatenate([getattr(run.per_request, times) for run in self.runs(strategy)])
        known: Floats = pooled[np.isfinite(pooled)]
        if not len(known):
            return known
        quantiles: Floats = np.quantile(known, SHARES)
        return quantiles

    def load_over_time(self, strategy: str) -> tuple[float, Floats]:
        """Requests in flight on each endpoint, by the first seed.

        Returns:
            Milliseconds that are drawn, and means over each of `MOMENTS` spans of them; a row an
            endpoint, or a row some neighbouring endpoints where there are more than `LANES`.
        """
        run = self.runs(strategy)[0]
        each = run.per_request
        served = np.isfinite(each.end_ms) & (each.endpoint >= 0)
        if not served.any():
            return 0.0, np.zeros((1, MOMENTS))
        begin = each.arrival_ms[served].min()
        span = float(each.end_ms[served].max() - begin)
        edges = begin + np.linspace(0, span, MOMENTS + 1)
        group = -(-run.settings.endpoints // LANES)
        lane = each.endpoint // group
        lanes = -(-run.settings.endpoints // group)
        busy = np.empty((lanes, MOMENTS))
        for at in range(lanes):
            mine = served & (lane == at)
            members = min(group, run.settings.endpoints - at * group)
            spent = _passed(each.arrival_ms[mine], edges) - _passed(each.end_ms[mine], edges)
            busy[at] = np.diff(spent) / (span / MOMENTS) / members
        return span, busy

    def queues(self, where: Literal["router", "endpoints"]) -> tuple[float, dict[str, Floats]]:
        """Requests that wait over time, of all endpoints together, by the first seed.

        Args:
            where: As for `PerRequest.queued`.

        Returns:
            Milliseconds that are drawn, the same for all strategies, and means over each of
            `MOMENTS` spans of them.
        """
        each = {row.strategy: self.runs(row.strategy)[0].per_request for row in self.ranked}
        known = [times[np.isfinite(times)] for one in each.values() for times in _times(one)]
        known = [times for times in known if len(times)]
        if not known:
            return 0.0, {name: np.zeros(MOMENTS) for name in each}
        begin = min(float(times.min()) for times in known)
        span = max(float(times.max()) for times in known) - begin
        edges = begin + np.linspace(0, span, MOMENTS + 1)
        waiting = {}
        for name, one in each.items():
            came, went = one.queued(where)
            spent = _passed(came, edges) - _passed(went, edges)
            # Differences of large sums: what is left of nothing may be a little less.
            waiting[name] = np.diff(spent).clip(0) / max(span / MOMENTS, 1e-9)
        return span, waiting


def _times(one: PerRequest) -> tuple[Floats, Floats, Floats]:
    """Between which a run is drawn."""
    return one.arrival_ms, one.turned_away_ms, one.end_ms


def _passed(starts: Floats, edges: Floats) -> Floats:
    """Milliseconds that have passed since each of `starts`, summed, at every edge."""
    starts = np.sort(starts)
    before = np.searchsorted(starts, edges)
    sums = np.concatenate([[0.0], np.cumsum(starts)])
    passed: Floats = before * edges - sums[before]
    return passed
