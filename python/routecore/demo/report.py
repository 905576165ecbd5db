"""The tables: live while running, final at the end."""

from typing import Any

from rich.table import Table

from routecore.demo.runner import Result

_COLUMNS = (
    ("requests", "reqs", "{:d}"),
    ("errors", "errs", "{:d}"),
    ("ttft_p50_ms", "TTFT\np50\nms", "{:.0f}"),
    ("ttft_p99_ms", "TTFT\np99\nms", "{:.0f}"),
    ("token_hit_rate", "token\nhit", "{:.1%}"),
    ("event_hit_rate", "KV\nevent\nhit", "{:.1%}"),
    ("cache_by", "cache\nknown\nby", "{}"),
    ("max_mean_load", "max/\nmean\nload", "{:.2f}"),
    ("decision_p50_us", "pick\np50\nµs", "{:.1f}"),
    ("decision_p99_us", "pick\np99\nµs", "{:.1f}"),
)


def table(results: list[Result], title: str) -> Table:
    """One row per strategy; a running one is marked. KV events have columns if there are any."""
    out = Table(title=title, pad_edge=False, collapse_padding=True)
    events = any(result.held_tokens is not None for result in results)
    only_with_events = ("event_hit_rate", "cache_by")
    columns = [column for column in _COLUMNS if events or column[0] not in only_with_events]
    out.add_column("strategy", no_wrap=True)
    for _, heading, _ in columns:
        out.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        figures = result.as_dict()
        name = result.strategy + (" …" if result.running else "")
        out.add_row(name, *(_cell(figures[key], form) for key, _, form in columns))
    return out


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)
