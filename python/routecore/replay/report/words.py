"""The report's sentences, and numbers as people read them."""

import math

from routecore.replay.differences import LEAST_SEEDS, Difference, difference
from routecore.replay.report.figures import Figures
from routecore.replay.table import Row

_GAP = "\u00a0"
"""Between a number and its unit, which stay on one line."""


def duration(ms: float) -> str:
    """Three digits and a unit: "8.12 ms", "241 ms", "2.71 s", "135 s", "59 min"."""
    if not math.isfinite(ms):
        return "–"
    if ms >= 6e5:
        return f"{ms / 6e4:.0f}{_GAP}min"
    value, unit = (ms, "ms") if ms < 999.5 else (ms / 1e3, "s")
    if value == 0 or value >= 99.95:
        return f"{value:.0f}{_GAP}{unit}"
    return f"{value:.1f}{_GAP}{unit}" if value >= 9.995 else f"{value:.2f}{_GAP}{unit}"


def tick(ms: float) -> str:
    """A round number of milliseconds, without digits that say nothing: "50 ms", "1.5 s"."""
    value, unit = (ms, "ms") if ms < 999.5 else (ms / 1e3, "s")
    return f"{value:.3g}{_GAP}{unit}" if value < 1000 else duration(ms)


def unit_of(span: float) -> tuple[float, str]:
    """The unit in which a span of milliseconds is read, and how many of them it has."""
    return (6e4, "min") if span >= 6e5 else (1e3, "s") if span >= 1e3 else (1.0, "ms")


def number(value: float, digits: int) -> str:
    """A figure of the table."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def percent(share: float) -> str:
    """A share: "24.4 %"."""
    return f"{100 * share:.1f}{_GAP}%" if math.isfinite(share) else "–"


def change(found: Difference | None) -> str:
    """A ratio as what it changes: "−25.0 %"."""
    if found is None or not math.isfinite(found.ratio):
        return "–"
    return f"{100 * (found.ratio - 1):+.1f}{_GAP}%".replace("-", "−")


def _names(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _by(found: Difference) -> str:
    off = 100 * (found.ratio - 1)
    return f"{abs(off):.0f}{_GAP}% {'faster' if off < 0 else 'slower'}"


def verdict(figures: Figures) -> list[tuple[str, bool]]:
    """The best strategy in one sentence: its parts, and whether a part is a name."""
    best = figures.ranked[0]
    ttft, e2e = duration(best.ttft_ms["mean"]), duration(best.e2e_ms["mean"])
    against = best.against
    if against and all(math.isfinite(pair.ratio) for pair in against.values()):
        first, whole = against["ttft_ms.mean"], against["e2e_ms.mean"]
        return [
            (best.strategy, True),
            (f" serves this traffic best: first token after {ttft}, {_by(first)} than ", False),
            (figures.baseline, True),
            (f", whole answer after {e2e}, {_by(whole)}.", False),
        ]
    said = " alone was replayed"
    if len(figures.ranked) > 1:
        said = " serves this traffic best"
        said += ", nothing beats it" if best is figures.reference else ""
    return [
        (best.strategy, True),
        (f"{said}: first token after {ttft}, whole answer after {e2e}.", False),
    ]


def _level_with(figures: Figures, best: Row) -> list[str]:
    """Strategies whose distance from the best is noise, in both means."""
    found = []
    for row in figures.ranked[1:]:
        pair = figures.runs(row.strategy), figures.runs(best.strategy)
        if not any(
            difference(*pair, figure, "mean").exceeds_noise for figure in ("ttft_ms", "e2e_ms")
        ):
            found.append(row.strategy)
    return found


def certainty(figures: Figures) -> str:
    """How far the sentence can be trusted."""
    best = figures.ranked[0]
    if len(figures.ranked) == 1:
        return "There is nothing to compare it with."
    if best.seeds < LEAST_SEEDS:
        seeds = "one seed" if best.seeds == 1 else f"{best.seeds} seeds"
        return (
            f"From {seeds}: too few to tell gain from noise. Repeat with --seeds {LEAST_SEEDS} "
            "before you act on it."
        )
    said = ""
    if best.against:
        kinds = {"first token": "ttft_ms.mean", "whole answer": "e2e_ms.mean"}
        clear = [kind for kind, key in kinds.items() if best.against[key].exceeds_noise]
        said = {
            2: "Both differences are more than noise",
            1: f"Only the difference in {_names(clear or [''])} is more than noise",
            0: "Neither difference is more than noise",
        }[len(clear)] + f" ({best.seeds} seeds, paired 95 % interval). "
    level = [name for name in _level_with(figures, best) if name != figures.baseline]
    if level:
        shown = level if len(level) < 4 else [*level[:3], f"{len(level) - 3} more"]
        said += f"Within noise of it: {_names(shown)}."
    return said.strip() or "It is ahead of all others by more than noise."


def load_of(figures: Figures, strategy: str) -> str:
    """The speed-up that a strategy carries in a sweep: "×0.75", "> ×3"."""
    knee = figures.knees.get(strategy)
    return f"×{knee:g}" if knee is not None else f">{_GAP}×{figures.loads[-1]:g}"


def carried(figures: Figures) -> str:
    """How much load the best and the baseline carry; empty where one load alone was replayed."""
    if len(figures.loads) < 2:
        return ""
    if all(knee is None for knee in figures.knees.values()):
        return (
            f"No strategy is stressed up to {load_of(figures, '')[2:]}: raise --speedup, name a "
            "slower --engine, or take fewer --endpoints to see which carries most."
        )
    best = figures.ranked[0].strategy
    said = f"It carries {_up_to(figures, best)} before its mean TTFT triples"
    if figures.baseline in figures.knees and figures.baseline != best:
        said += f"; {figures.baseline} {_up_to(figures, figures.baseline)}"
    return said + "."


def _up_to(figures: Figures, strategy: str) -> str:
    load = load_of(figures, strategy)
    return f"more than {load[2:]}" if load.startswith(">") else load
