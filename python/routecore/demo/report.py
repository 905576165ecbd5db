"""The tables: live while running, final at the end; lines where there is no terminal."""

import time
from collections.abc import Callable
from typing import Any

from rich.table import Table

from routecore.demo.runner import Result

_COLUMNS = (
    ("requests", "reqs", "{:d}"),
    ("errors", "errs", "{:d}"),
    ("ejections", "left\nalone", "{:d}"),
    ("out", "out now", "{}"),
    ("ttft_p50_ms", "TTFT\np50\nms", "{:.0f}"),
    ("ttft_p99_ms", "TTFT\np99\nms", "{:.0f}"),
    ("token_hit_rate", "token\nhit", "{:.1%}"),
    ("event_hit_rate", "KV\nevent\nhit", "{:.1%}"),
    ("cache_by", "cache\nknown\nby", "{}"),
    ("max_mean_load", "max/\nmean\nload", "{:.2f}"),
)


def table(results: list[Result], title: str) -> Table:
    """One row per strategy; a running one is marked. KV events have columns if there are any."""
    out = Table(title=title, pad_edge=False, collapse_padding=True)
    events = any(result.held_tokens is not None for result in results)
    broke = any(result.news for result in results)
    hidden: list[str] = [] if events else ["event_hit_rate", "cache_by"]
    hidden += [] if broke else ["ejections", "out"]
    columns = [column for column in _COLUMNS if column[0] not in hidden]
    out.add_column("strategy", no_wrap=True)
    for _, heading, _ in columns:
        out.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        figures = result.as_dict()
        figures["out"] = ", ".join(f"{at} ({why})" for at, why in result.out.items()) or None
        name = result.strategy + (
            " …" if result.running else " (interrupted)" if result.interrupted else ""
        )
        out.add_row(name, *(_cell(figures[key], form) for key, _, form in columns))
    return out


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


class Lines:
    """Says how far the run is, at most once a second, where a table cannot be redrawn."""

    def __init__(self, say: Callable[[str], object], total: int) -> None:
        self._say, self._total, self._next = say, total, 0.0
        self._said = 0

    def __call__(self, results: list[Result]) -> None:
        """Take the results so far."""
        last = results[-1]
        for line in last.news[self._said :]:
            self._say(f"{last.strategy}, {line}")
        self._said = len(last.news) if last.running else 0
        if last.running and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        done = len(results) - last.running
        self._say(f"{done}/{self._total} {last.strategy}: {last.requests} requests")
