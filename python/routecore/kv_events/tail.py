"""The live view of event streams, for people who debug."""

import time
from collections.abc import Mapping
from typing import Any

import httpx
from rich.table import Table

from routecore.endpoints.metrics import read_metrics
from routecore.kv_events.subscriber import KVEventSubscriber

_LOSSES = ("gaps", "duplicates", "unreadable", "malformed", "restarts", "resets", "overruns")
_ODD = (
    "unknown_types",
    "unknown_parents",
    "unknown_hashes",
    "unknown_media",
    "unknown_removed",
    "shared",
    "skipped_groups",
    "block_sizes",
    "over_capacity",
    "other_ranks",
    "disbelieved",
)


class Rates:
    """Turns counters that grow into figures per second.

    Args:
        subscriber: Whose publishers are shown.
        metrics: Endpoint → the engine's HTTP address, to read its prefix cache's hits from.
    """

    def __init__(
        self, subscriber: KVEventSubscriber, metrics: Mapping[str, str] | None = None
    ) -> None:
        self._subscriber = subscriber
        self._metrics = dict(metrics or {})
        self._before: dict[tuple[str, int], dict[str, Any]] = {}
        self._time = time.monotonic()

    def rows(self) -> list[dict[str, Any]]:
        """One row per publisher: its status, and rates since the last call."""
        now = time.monotonic()
        seconds, self._time = max(now - self._time, 1e-9), now
        rows = []
        for url, publishers in self._subscriber.status().items():
            share = hit_share(self._metrics[url]) if url in self._metrics else None
            for status in publishers:
                who = (url, status["rank"])
                before = self._before.get(who, {})
                self._before[who] = dict(status)
                for name in ("batches", "stored", "removed"):
                    change = status.get(name, 0) - before.get(name, 0)
                    status[f"{name}_per_s"] = change / seconds
                rows.append({"url": url, **status, "hit_share": share})
        return rows


def hit_share(url: str) -> float | None:
    """Share of prompt tokens that the engine found in its cache, by its own metrics."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/metrics", timeout=1.0, trust_env=False)
        reading = read_metrics(answer.raise_for_status().text)
    except (httpx.HTTPError, ValueError):
        return None
    return None if reading.hits is None or not reading.queries else reading.hits / reading.queries


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for a terminal; what is odd is named, with its count."""
    out = Table(pad_edge=False, collapse_padding=True)
    out.add_column("publisher", overflow="fold")
    for heading in (
        "seq",
        "batches\n/s",
        "stored\n/s",
        "removed\n/s",
        "held\nblocks",
        "hit\nshare",
    ):
        out.add_column(heading, justify="right")
    out.add_column("state")
    for row in rows:
        share = row["hit_share"]
        out.add_row(
            row["address"],
            _shown(row.get("last_seq")),
            f"{row['batches_per_s']:.1f}",
            f"{row['stored_per_s']:.0f}",
            f"{row['removed_per_s']:.0f}",
            str(row.get("blocks", 0)),
            "-" if share is None else f"{share:.0%}",
            state(row),
        )
    return out


def state(row: dict[str, Any]) -> str:
    """Connection, view, losses, and what was passed over."""
    parts = []
    if not row["connected"]:
        parts.append("not connected")
    elif row["last_event_age_s"] is None:
        parts.append("connected, silent so far")
    if row["resyncing"]:
        parts.append("resyncing")
    elif row.get("exact"):
        parts.append("exact")
    elif row.get("batches"):
        parts.append("partial")
    parts += [f"{name} {row[name]}" for name in (*_LOSSES, *_ODD) if row.get(name)]
    return ", ".join(parts)


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)
