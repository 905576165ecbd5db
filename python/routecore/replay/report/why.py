"""Why requests went where they went: some decisions of each pictured strategy, in few bytes."""

import math
from typing import Any

import numpy as np

from routecore.replay.report.figures import LANES, Figures
from routecore.replay.result import Decision


def decisions(figures: Figures, strategy: str) -> dict[str, Any] | None:
    """What the page tells of a strategy's decisions; None where none were kept.

    Returns:
        terms: Name and unit of each part of the score.
        lower: Whether the lowest score wins; None where scores do not decide.
        group: Endpoints a row of the picture.
        span: Milliseconds that the picture shows.
        rows: Per decision: request, milliseconds, prompt tokens, tokens found in the cache,
            endpoint, number of candidates, and of those that were kept endpoint, score, terms.
    """
    run = figures.runs(strategy)[0]
    if not run.decisions:
        return None
    each = run.per_request
    served = np.isfinite(each.end_ms) & (each.endpoint >= 0)
    begin = float(each.arrival_ms[served].min()) if served.any() else 0.0
    span = float(each.end_ms[served].max() - begin) if served.any() else 0.0
    terms = _terms(run.decisions)
    rows = []
    for decision in run.decisions:
        candidates = []
        for found in decision.candidates:
            values = {term.name: term.value for term in found.terms}
            parts = [_short(values.get(name, math.nan)) for name, _ in terms]
            candidates.append([found.endpoint, _short(found.score), *parts])
        rows.append(
            [
                decision.request,
                round(decision.time_ms - begin),
                int(each.input_tokens[decision.request]),
                int(each.cached_tokens[decision.request]),
                decision.endpoint,
                decision.among,
                candidates,
            ]
        )
    return {
        "terms": terms,
        "lower": _lower_wins(run.decisions),
        "group": -(-run.settings.endpoints // LANES),
        "span": round(span),
        "rows": rows,
    }


def _terms(decisions: tuple[Decision, ...]) -> list[tuple[str, str]]:
    """The parts of the scores that are not 0 everywhere."""
    found = [term for d in decisions for c in d.candidates for term in c.terms]
    moving = {term.name for term in found if term.value}
    return [pair for pair in dict.fromkeys((t.name, t.unit) for t in found) if pair[0] in moving]


def _lower_wins(decisions: tuple[Decision, ...]) -> bool | None:
    """Which end of the scores wins, by where the chosen ones stand as a rule."""
    low = high = 0
    for decision in decisions:
        scores = [c.score for c in decision.candidates if not math.isnan(c.score)]
        if len(scores) < 2 or min(scores) == max(scores):
            continue
        low += decision.candidates[0].score == min(scores)
        high += decision.candidates[0].score == max(scores)
    if max(low, high) < 0.8 * len(decisions) / 2 or low == high:
        return None
    return low > high


def _short(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
