"""The tables: live while running, final at the end."""

from typing import Any

from rich.table import Table

from routecore.demo.runner import Result

_COLUMNS = (
    ("requests", "requests", "{:d}"),
    ("errors", "errors", "{:d}"),
    ("ttft_p50_ms", "TTFT p50 ms", "{:.0f}"),
    ("ttft_p99_ms", "TTFT p99 ms", "{:.0f}"),
    ("token_hit_rate", "token hit", "{:.1%}"),
    ("max_mean_load", "max/mean load", "{:.2f}"),
    ("decision_p50_us", "decision p50 µs", "{:.1f}"),
    ("decision_p99_us", "decision p99 µs", "{:.1f}"),
)


def table(results: list[Result], title: str) -> Table:
    """One row per strategy; a running one is marked."""
    out = Table(title=title)
    out.add_column("strategy", no_wrap=True)
    for _, heading, _ in _COLUMNS:
        out.add_column(heading, justify="right")
    for result in results:
        figures = result.as_dict()
        name = result.strategy + (" …" if result.running else "")
        out.add_row(name, *(_cell(figures[key], form) for key, _, form in _COLUMNS))
    return out


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)
