"""Strategies side by side on one trace: a ranked table, figures by row, a page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from routecore.errors import RouteError
from routecore.replay.columns import Trace
from routecore.replay.result import SHOWN, ReplayResult
from routecore.replay.runner import run
from routecore.replay.table import REFERENCE, Row, knees, ranked
from routecore.replay.table import compare as rows_of
from routecore.replay.text import lines, verdict
from routecore.replay.traces import read_trace
from routecore.replay.workloads import WORKLOADS, generate

if TYPE_CHECKING:
    import pandas
    import polars

_JITTER_MS = 1500.0


class Comparison(msgspec.Struct, frozen=True, eq=False):
    """Strategies on the same traffic. `print` it for a ranked table; notebooks show it as one.

    Attributes:
        results: All runs: every strategy at every load with every seed.
        baseline: The strategy that the others are compared with.
    """

    results: tuple[ReplayResult, ...]
    baseline: str = REFERENCE

    @property
    def rows(self) -> list[Row]:
        """A row a load and strategy: means over the seeds, gains over the baseline."""
        return rows_of(self.results, self.baseline)

    @property
    def best(self) -> Row:
        """The best strategy at the traffic as it is (or the highest load, without that)."""
        rows = self.rows
        loads = {row.speedup for row in rows}
        judged = 1.0 if 1.0 in loads else max(loads)
        return ranked([row for row in rows if row.speedup == judged])[0]

    def __str__(self) -> str:
        rows = self.rows
        judged = [row for row in rows if row.speedup == self.best.speedup]
        text = lines(rows, knees(self.results), self.results[0].settings, baseline=self.baseline)
        return "\n".join([*text, verdict(judged, self.baseline)])

    def __repr__(self) -> str:
        strategies = len({result.settings.strategy for result in self.results})
        return f"<Comparison of {strategies} strategies, best: {self.best.strategy}>"

    def _repr_html_(self) -> str:
        """The rows as a table, for notebooks."""
        records = list(self.records())
        head = "".join(f"<th>{name}</th>" for name in records[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in record.values()) + "</tr>"
            for record in records
        )
        return f"<table><tr>{head}</tr>{body}</table>"

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as plain dicts, best first at each load; times in milliseconds."""
        rows = self.rows
        for load in dict.fromkeys(row.speedup for row in rows):
            for row in ranked([row for row in rows if row.speedup == load]):
                yield {
                    "strategy": row.strategy,
                    "speedup": row.speedup,
                    "ttft_mean": row.ttft_ms["mean"],
                    "ttft_p99": row.ttft_ms["p99"],
                    "e2e_mean": row.e2e_ms["mean"],
                    "e2e_p99": row.e2e_ms["p99"],
                    "tpot_mean": row.tpot_ms["mean"],
                    "token_hit_rate": row.token_hit_rate,
                    "max_over_mean_load": row.max_over_mean_load,
                    "lost": row.lost,
                }

    def to_pandas(self) -> "pandas.DataFrame":
        """`records` as a pandas frame; pandas must be installed."""
        import pandas

        return pandas.DataFrame(list(self.records()))

    def to_polars(self) -> "polars.DataFrame":
        """`records` as a polars frame; polars must be installed."""
        import polars

        return polars.DataFrame(list(self.records()))

    def report(self, path: str | Path) -> Path:
        """Write the HTML page with all figures; needs `routecore[report]`."""
        from routecore.replay.report import page

        path = Path(path)
        path.write_text(page(self.results, self.baseline), encoding="utf-8")
        return path


def _cell(value: Any) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def compare(
    trace: Trace | str | Path,
    strategies: Sequence[Any] | Mapping[str, Any] = ("round_robin", "expected_latency"),
    *,
    seeds: int = 1,
    speedups: Sequence[float] = (1.0,),
    baseline: str | None = None,
    **settings: Any,
) -> Comparison:
    """Replay a trace through several strategies.

    Args:
        trace: Requests, a file of them, or the name of a generated workload, which is then drawn
            anew with each seed.
        strategies: Words, or routers of your own; a mapping names them.
        seeds: Repetitions; from 5 on significant differences are marked.
        speedups: Loads: what arrival times are divided by.
        baseline: What the others are compared with; the first strategy if left out.
        settings: As for `run`: `endpoints`, `engine`, `kv_blocks`, …

    Raises:
        RouteError: As `run` raises; or no strategies.
    """
    named = strategies if isinstance(strategies, Mapping) else {_name(s): s for s in strategies}
    if not named:
        raise RouteError("strategies: expected at least one")
    first = settings.pop("seed", 0)
    drawn = isinstance(trace, str) and trace in WORKLOADS and not Path(trace).exists()
    if seeds > 1 and not drawn:
        settings.setdefault("jitter_ms", _JITTER_MS)
    if not isinstance(trace, Trace) and not drawn:
        trace = read_trace(trace)
    results = [
        run(
            generate(str(trace), seed=seed) if drawn else trace,
            strategy=strategy,
            label=name,
            speedup=speedup,
            seed=seed,
            # The page shows some of the first seed's.
            decisions=SHOWN if seed == first else 0,
            **settings,
        )
        for seed in range(first, first + seeds)
        for speedup in speedups
        for name, strategy in named.items()
    ]
    return Comparison(tuple(results), baseline or next(iter(named)))


def _name(strategy: Any) -> str:
    if isinstance(strategy, str):
        return strategy
    return strategy.__name__ if isinstance(strategy, type) else type(strategy).__name__
