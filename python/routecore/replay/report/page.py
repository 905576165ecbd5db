"""The page: figures into the template, styles and script beside it."""

import json
import math
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from routecore.replay.differences import FLOOR, Difference
from routecore.replay.report import words
from routecore.replay.report.figures import MOMENTS, SHARES, Figures
from routecore.replay.report.made import Made
from routecore.replay.report.plot import (
    LEAST,
    LEVELS,
    Scale,
    Tick,
    counts_scale,
    dots,
    line,
    log_scale,
    shades,
)
from routecore.replay.report.why import decisions
from routecore.replay.table import ranked

COLOURED = 5
"""Strategies with a colour of their own, beside the baseline; the others are grey until chosen."""
PICTURED = 4
"""Strategies whose load over time is shown."""


def render(figures: Figures, made: Made) -> str:
    """The HTML of a report."""
    page = Environment(
        loader=PackageLoader("routecore.replay.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "duration": words.duration,
        "number": words.number,
        "percent": words.percent,
        "change": words.change,
    }
    here = files("routecore.replay.report")
    order = [row.strategy for row in figures.ranked]
    strategies = [
        {"name": row.strategy, "tone": tone, "row": row}
        for row, tone in zip(figures.ranked, _tones(order, figures.baseline), strict=True)
    ]
    plots = [*_curves(figures, order), *_queues(figures, order), *_distributions(figures, order)]
    pictures = _pictures(figures)
    shown = {each["name"]: decisions(figures, each["name"]) for each in pictures["each"]}
    data = {
        "names": order,
        "plots": {plot["id"]: plot.pop("data") for plot in plots},
        "why": {name: why for name, why in shown.items() if why},
    }
    return page.get_template("page.html").render(
        css=Markup((here / "page.css").read_text("utf-8")),
        script=Markup((here / "page.js").read_text("utf-8")),
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        verdict=words.verdict(figures),
        certainty=words.certainty(figures),
        tiles=_tiles(figures),
        strategies=strategies,
        plots=plots,
        gains=_gains(figures),
        hits=_hits(figures),
        loads=figures.loads,
        load=figures.load,
        knees=figures.knees,
        pictures=pictures,
        why=data["why"],
        carried=words.carried(figures),
        made=made,
        levels=LEVELS,
        moments=MOMENTS,
        rows=[
            row
            for load in figures.loads
            for row in ranked([row for row in figures.rows if row.speedup == load])
        ],
        reference=figures.baseline,
        settings=figures.first.settings,
        requests=figures.first.requests,
        seeds=figures.ranked[0].seeds,
    )


def _tones(order: list[str], baseline: str) -> list[str]:
    """The best strategies by colour, the baseline by its own, all others grey."""
    free = iter([f"tone{at + 1}" for at in range(COLOURED)])
    return ["reference" if name == baseline else next(free, "grey") for name in order]


def _tiles(figures: Figures) -> list[dict[str, str]]:
    """The best strategy's figures, each beside the baseline's."""
    best, base = figures.ranked[0], figures.reference

    def tile(name: str, key: str, show: Any, value: Any) -> dict[str, str]:
        other = "" if base is None or base is best else show(value(base))
        return {"name": name, "key": key, "value": show(value(best)), "other": other}

    return [
        tile("TTFT, mean", "ttft_ms.mean", words.duration, lambda row: row.ttft_ms["mean"]),
        tile("TTFT, p99", "ttft_ms.p99", words.duration, lambda row: row.ttft_ms["p99"]),
        tile("E2E, mean", "e2e_ms.mean", words.duration, lambda row: row.e2e_ms["mean"]),
        tile("Prompt from cache", "token_hit_rate", words.percent, lambda row: row.token_hit_rate),
        tile("Within target", "goodput", words.percent, lambda row: row.goodput),
        *_load_carried(figures),
    ]


def _load_carried(figures: Figures) -> list[dict[str, str]]:
    """How much load the best strategy carries, beside the baseline; needs several loads."""
    best, base = figures.ranked[0].strategy, figures.baseline
    if len(figures.loads) < 2:
        return []
    other = words.load_of(figures, base) if base in figures.knees and base != best else ""
    label = "Load before TTFT triples"
    return [
        {"name": label, "key": "knee", "value": words.load_of(figures, best), "other": other},
    ]


def _ticks(scale: Scale, label: Any, upwards: bool = False) -> list[Tick]:
    places = scale.at(scale.ticks()).tolist()
    return [
        Tick(round(100 * (1 - at if upwards else at), 2), label(value))
        for at, value in zip(places, scale.ticks(), strict=True)
    ]


def _curves(figures: Figures, order: list[str]) -> list[dict[str, Any]]:
    """TTFT and E2E over load; nothing where there is one load only."""
    if len(figures.loads) < 2:
        return []
    x_scale = Scale(figures.loads[0], figures.loads[-1], False)
    x = x_scale.at(figures.loads)
    plots = []
    for figure, part, title in (
        ("ttft_ms", "mean", "Time to first token, mean"),
        ("ttft_ms", "p99", "Time to first token, p99"),
        ("e2e_ms", "mean", "Whole answer, mean"),
    ):
        curves = [figures.curve(name, figure, part) for name in order]
        y_scale = log_scale([value for curve in curves for value in curve])
        places = [y_scale.at(curve) for curve in curves]
        plots.append(
            {
                "id": f"load-{figure}-{part}",
                "kind": "curve",
                "title": title,
                "x_title": "speed-up of arrivals; times on a log scale",
                "x": [
                    Tick(round(100 * at, 2), f"×{load:g}")
                    for at, load in _apart(x.tolist(), figures.loads)
                ],
                "y": _ticks(y_scale, words.tick, upwards=True),
                "lines": [line(x, y) for y in places],
                "dots": [dots(x, y) for y in places],
                "mark": round(100 * float(x_scale.at(figures.load)), 2),
                "data": {
                    "x": [round(at, 4) for at in x.tolist()],
                    "label": [f"speed-up ×{load:g}" for load in figures.loads],
                    "y": [[_short(value) for value in curve] for curve in curves],
                },
            }
        )
    return plots


def _apart(places: list[float], values: list[float]) -> list[tuple[float, float]]:
    """The values that can be written without touching each other."""
    kept: list[tuple[float, float]] = []
    for at, value in zip(places, values, strict=True):
        if not kept or at - kept[-1][0] > 0.1:
            kept.append((at, value))
    return kept


def _distributions(figures: Figures, order: list[str]) -> list[dict[str, Any]]:
    """Which share of the requests is served within a time."""
    plots = []
    for times, title in (("ttft_ms", "Time to first token"), ("e2e_ms", "Whole answer")):
        each = [figures.distribution(name, times) for name in order]
        # The fastest per mille would stretch the axis for nothing.
        scale = log_scale([value for d in each if len(d) for value in (d[1], d[-1])])
        up = Scale(0.0, 1.0, False)
        plots.append(
            {
                "id": f"share-{times}",
                "kind": "share",
                "title": title,
                "x_title": "within (log scale)",
                "x": _ticks(scale, words.tick),
                "y": _ticks(up, lambda share: f"{100 * share:.0f} %", upwards=True),
                "lines": [line(scale.at(d), SHARES) if len(d) else "" for d in each],
                "dots": [],
                "mark": None,
                "data": {
                    "low": scale.low,
                    "high": scale.high,
                    "shares": SHARES.round(4).tolist(),
                    "x": [[_short(value) for value in d.tolist()] for d in each],
                },
            }
        )
    return plots


def _queues(figures: Figures, order: list[str]) -> list[dict[str, Any]]:
    """How many requests wait over time: at the router, where they may, and at the endpoints."""
    held = any(run.settings.hold for name in order for run in figures.runs(name))
    titles = {"router": "waiting at the router", "endpoints": "queued at endpoints"}
    plots = []
    for where in ("router", "endpoints") if held else ("endpoints",):
        span, waiting = figures.queues(where)
        unit, name = words.unit_of(span)
        across = Scale(0.0, max(span, 1.0) / unit, False)
        up = counts_scale([float(each.max()) for each in waiting.values()])
        middle = (np.arange(MOMENTS) + 0.5) / MOMENTS
        plots.append(
            {
                "id": f"queue-{where}",
                "kind": "queue",
                "title": f"Requests {titles[where]}",
                "x_title": f"simulated time; requests on a log scale, at the foot below {LEAST:g}",
                "x": _ticks(across, lambda value, name=name: f"{value:g}\u00a0{name}"),
                "y": _ticks(up, lambda value: f"{value:,.10g}", upwards=True),
                "lines": [line(middle, up.at(waiting[name])) for name in order],
                "dots": [],
                "mark": None,
                "data": {
                    "span": span,
                    "y": [[_short(value) for value in waiting[name].tolist()] for name in order],
                },
            }
        )
    return plots


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _gains(figures: Figures) -> list[dict[str, Any]]:
    """Every strategy's paired difference to the baseline, as bars from a common line."""
    others = [row for row in figures.ranked if row.against]
    keys = {"Time to first token, mean": "ttft_ms.mean", "Whole answer, mean": "e2e_ms.mean"}
    gains = []
    for title, key in keys.items() if others else ():
        offs = [_off(row.against[key]) for row in others]
        known = [off for off in offs if math.isfinite(off)]
        track = Track(_step(-min(known, default=0.0)), _step(max(known, default=0.0)))
        gains.append(
            {
                "title": title,
                "track": track,
                "zero": track.place(0.0),
                "floor": [track.place(sign * 100 * FLOOR["mean"]) for sign in (-1, 1)],
                "bars": [(row.strategy, _bar(row.against[key], track)) for row in others],
            }
        )
    return gains


def _off(found: Difference) -> float:
    return 100 * (found.ratio - 1)


def _step(most: float) -> int:
    """Where a track that reaches `most` percent ends."""
    return next((step for step in (5, 10, 20, 30, 40, 50, 60, 80) if most <= step), 100)


class Track(msgspec.Struct, frozen=True):
    """Changes from `-down` to `up` percent, as places from 0 to 100."""

    down: int
    up: int

    def place(self, off: float) -> float:
        inside = min(max(off, -self.down), self.up)
        return round(100 * (inside + self.down) / (self.down + self.up), 2)


def _bar(found: Difference, track: Track) -> dict[str, Any]:
    """A bar from no change to the one found, and its interval."""
    off, half = _off(found), 100 * found.half_width
    bar = {"change": words.change(found), "sure": found.exceeds_noise, "better": off < 0}
    if not math.isfinite(off):
        return {**bar, "left": 0, "wide": 0, "beyond": False, "whisker": None}
    left, right = sorted((track.place(0.0), track.place(off)))
    ends = (track.place(off - half), track.place(off + half)) if math.isfinite(half) else None
    return {
        **bar,
        "left": left,
        "wide": round(right - left, 2),
        "beyond": off > track.up,
        "whisker": ends and (ends[0], round(ends[1] - ends[0], 2)),
        "half": f"± {half:.1f}",
    }


def _hits(figures: Figures) -> list[tuple[str, float, float]]:
    """Strategy, hit rate, and the length of its bar in percent of the longest."""
    most = max((row.token_hit_rate for row in figures.ranked), default=0.0) or 1.0
    return [
        (row.strategy, row.token_hit_rate, round(100 * row.token_hit_rate / most, 1))
        for row in figures.ranked
    ]


def _pictures(figures: Figures) -> dict[str, Any]:
    """Load over time: the best strategies and the baseline, in the same shades."""
    shown = [row.strategy for row in figures.ranked[:PICTURED]]
    if figures.reference and figures.baseline not in shown:
        shown[-1:] = [figures.baseline]
    each = {name: figures.load_over_time(name) for name in shown}
    # A single peak must not pale all the rest.
    most = float(max(np.quantile(busy, 0.998) for _, busy in each.values()))
    return {
        "most": most,
        "each": [
            {
                "name": name,
                "span": words.duration(span),
                "lanes": len(busy),
                "shades": shades(busy, most),
                "peak": float(busy.max()),
            }
            for name, (span, busy) in each.items()
        ],
    }
