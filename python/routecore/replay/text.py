"""A comparison as text for a terminal of 80 columns: ranked, with units, and a verdict."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from routecore.replay.differences import LEAST_SEEDS, Difference
from routecore.replay.result import Settings
from routecore.replay.table import REFERENCE, Row, ranked


def duration(ms: float) -> str:
    """Three digits and a unit: "8.12 ms", "241 ms", "2.71 s", "135 s"."""
    if not math.isfinite(ms):
        return "never"
    value, unit = (ms, "ms") if ms < 999.5 else (ms / 1e3, "s")
    digits = 0 if value == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def lines(
    rows: Sequence[Row],
    knees: Mapping[str, float | None],
    settings: Settings,
    *,
    baseline: str = REFERENCE,
    wide: bool = False,
) -> Iterator[str]:
    """The rows as ranked tables, one a load; then what a sweep says of capacity.

    Args:
        rows: As `compare` returns them.
        knees: As `knees` returns them.
        settings: Of any of the runs.
        baseline: The strategy that the rows were compared with.
        wide: All columns instead of those that fit into 80.
    """
    loads = list(dict.fromkeys(row.speedup for row in rows))
    for load in loads:
        here = [row for row in rows if row.speedup == load]
        yield _title(settings, load, here[0].seeds)
        yield from table(here, baseline=baseline, wide=wide)
    if any(row.against for row in rows):
        yield _legend(rows)
    yield from _carried(rows, knees, loads)


def _title(settings: Settings, load: float, seeds: int) -> str:
    return (
        f"{settings.endpoints} x {settings.engine}, {settings.trace} x{load:g}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, best first"
    )


def table(here: Sequence[Row], *, baseline: str = REFERENCE, wide: bool = False) -> Iterator[str]:
    """The rows of one load, best first."""
    name = max([23, *(len(row.strategy) for row in here)])
    head = f"{'TTFT ms':>16}{'end-to-end s':>16}{'cache':>6}"
    columns = f"{'mean':>8}{'p99':>8}{'mean':>8}{'p99':>8}{'hit':>6}"
    if any(row.against for row in here):
        head += f"{'vs ' + (baseline if len(baseline) <= 13 else 'baseline'):>17}"
        columns += f"{'TTFT':>9}{'E2E':>8}"
    if wide:
        head += f"{'TTFT ms':>18}{'TPOT':>8}{'load':>8}{'most':>8}"
        columns += f"{'p50':>9}{'p90':>9}{'ms':>8}{'max/mean':>9}{'share':>7}"
    yield f"{'':{name}}{head}"
    yield f"{'':{name}}{columns}"
    for row in ranked(here):
        ttft, e2e = row.ttft_ms, row.e2e_ms
        text = (
            f"{row.strategy:{name}}{ttft['mean']:8,.0f}{ttft['p99']:8,.0f}"
            f"{e2e['mean'] / 1e3:8,.1f}{e2e['p99'] / 1e3:8,.1f}{100 * row.token_hit_rate:5.0f}%"
        )
        if any(other.against for other in here):
            gains = (row.against.get("ttft_ms.mean"), row.against.get("e2e_ms.mean"))
            text += f"{_gain(gains[0]):>9}{_gain(gains[1]):>8}"
        if wide:
            text += (
                f"{ttft['p50']:9,.0f}{ttft['p90']:9,.0f}{row.tpot_ms['mean']:8.1f}"
                f"{row.max_over_mean_load:9.2f}{100 * row.max_share:6.1f}%"
            )
        yield text.rstrip()
        if row.lost:
            yield f"{'':{name}} {row.lost} of {row.requests} requests lost"


def _gain(found: Difference | None) -> str:
    """A ratio as a percentage; marked where it is more than noise."""
    if found is None or not math.isfinite(found.ratio):
        return ""
    off = 100 * (found.ratio - 1)
    digits = 0 if abs(off) >= 999 else 1
    return f"{off:+.{digits}f}%{'*' if found.exceeds_noise else ' '}"


def _legend(rows: Sequence[Row]) -> str:
    if all(row.seeds < LEAST_SEEDS for row in rows):
        return f"To tell gain from noise, repeat with --seeds {LEAST_SEEDS}."
    return "* significant: outside the paired 95% interval and the noise floor"


def _carried(
    rows: Sequence[Row], knees: Mapping[str, float | None], loads: Sequence[float]
) -> Iterator[str]:
    """How much load each strategy carries, the most first; `>` marks those that never broke."""
    if len(loads) < 2:
        return
    if all(knee is None for knee in knees.values()):
        yield from textwrap.wrap(
            f"Load carried: no strategy is stressed up to x{max(loads):g}. Raise --speedup, name a "
            "slower --engine, or take fewer --endpoints.",
            80,
        )
        return
    yield "Load carried before mean TTFT triples:"
    order = [row.strategy for row in ranked([r for r in rows if r.speedup == max(loads)])]
    carried: dict[float, list[str]] = {}
    for name in order:
        knee = knees[name]
        carried.setdefault(math.inf if knee is None else knee, []).append(name)
    for load in sorted(carried, reverse=True):
        label = f"> x{max(loads):g}" if load == math.inf else f"x{load:g}"
        names = textwrap.wrap(", ".join(carried[load]), 68)
        yield from (f"  {label if at == 0 else '':8}{part}" for at, part in enumerate(names))


def verdict(here: Sequence[Row], baseline: str = REFERENCE) -> str:
    """The best of the rows of one load in a sentence, beside the baseline where that was run."""
    best = ranked(here)[0]
    ttft, e2e = duration(best.ttft_ms["mean"]), duration(best.e2e_ms["mean"])
    other = next((row for row in here if row.strategy == baseline), None)
    if other is None or other is best:
        return f"{best.strategy} is best: mean TTFT {ttft}, E2E {e2e}."
    base = duration(other.ttft_ms["mean"]), duration(other.e2e_ms["mean"])
    return (
        f"{best.strategy} is best: mean TTFT {ttft} instead of {base[0]} with {baseline}, "
        f"E2E {e2e} instead of {base[1]}."
    )
