"""What `router.explain(…)` returns: every endpoint's score, term by term, and which one wins."""

import html
import math
from collections.abc import Iterator

import msgspec

from routecore.endpoints.health import Standing
from routecore.hold import Waits


class Term(msgspec.Struct, frozen=True):
    """One part of a score.

    Attributes:
        name: The word of the term; `help(…)` of the router's class lists them.
        value: Its value, already weighted where the strategy weighs it.
        unit: "ms", "tokens", "requests", "1" for a share, …
    """

    name: str
    value: float
    unit: str


class CandidateScore(msgspec.Struct, frozen=True):
    """What one endpoint scored.

    Attributes:
        url: The endpoint.
        eligible: Whether it could be chosen at all.
        score: NaN where it could not, or where the strategy compares nothing (round robin).
        terms: The parts of the score; an endpoint that could not be chosen has none.
        standing: Why, since when and until when it is left alone, where its requests, or those of
            another router, fail; None where nothing is held against it.
        in_flight: This router's requests there, and those of all other routers; None for a router
            on its own.
    """

    url: str
    eligible: bool
    score: float
    terms: tuple[Term, ...]
    standing: Standing | None = None
    in_flight: tuple[int, int] | None = None


class Explanation(msgspec.Struct, frozen=True):
    """Why the next request would go where it goes. `print` it for a ranked table.

    Attributes:
        strategy: The word of the strategy.
        url: The endpoint that wins.
        candidates: Every endpoint, in the order in which they were given.
        waits: What the request would wait for, where requests wait for room (`router.hold`) and
            it would not go at once.
    """

    strategy: str
    url: str
    candidates: tuple[CandidateScore, ...]
    waits: Waits | None = None

    @property
    def winner(self) -> CandidateScore:
        """The endpoint that wins."""
        return next(candidate for candidate in self.candidates if candidate.url == self.url)

    @property
    def lower_is_better(self) -> bool | None:
        """Which end of the scores wins here, by where the winner stands.

        None where scores do not decide: all are equal, the strategy compares nothing, or the
        winner is neither first nor last (a draw, a bound on load).
        """
        scores = [c.score for c in self.candidates if c.eligible and not math.isnan(c.score)]
        won = self.winner.score
        if self.strategy == "random" or not scores or min(scores) == max(scores):
            return None
        return {min(scores): True, max(scores): False}.get(won)

    def ranked(self) -> tuple[CandidateScore, ...]:
        """The endpoints, the winner first, then by score; those that could not be chosen last."""
        sign = -1.0 if self.lower_is_better is False else 1.0

        def place(candidate: CandidateScore) -> tuple[bool, bool, float]:
            score = math.inf if math.isnan(candidate.score) else sign * candidate.score
            return candidate.url != self.url, not candidate.eligible, score

        return tuple(sorted(self.candidates, key=place))

    def _heading(self) -> str:
        units = sorted({t.unit for c in self.candidates for t in c.terms} - {"1"})
        which = {True: "lowest score wins", False: "highest score wins", None: ""}
        about = "; ".join(part for part in (", ".join(units), which[self.lower_is_better]) if part)
        return f"{self.strategy} -> {self.url}" + (f"   ({about})" if about else "")

    def _waiting(self) -> list[str]:
        """What the request would wait for: a line, if it would."""
        return [] if self.waits is None else [str(self.waits)]

    def _columns(self) -> list[str]:
        """The terms that are not 0 for every endpoint, in the order of the score."""
        named = {t.name: None for c in self.candidates for t in c.terms}
        moving = {t.name for c in self.candidates for t in c.terms if t.value}
        return [name for name in named if name in moving]

    def _shares(self) -> list[str]:
        """Headings of whose requests are in flight, where there are other routers."""
        alone = all(candidate.in_flight is None for candidate in self.candidates)
        return [] if alone else ["own", "others"]

    def _rows(self) -> Iterator[list[str]]:
        columns = self._columns()
        for candidate in self.ranked():
            values = {term.name: term.value for term in candidate.terms}
            mark = "*" if candidate.url == self.url else " " if candidate.eligible else "-"
            cells = [_figure(values[name]) if name in values else "" for name in columns]
            if self._shares():
                cells += map(str, candidate.in_flight or ("", ""))
            held = candidate.standing
            why = (held.reason or "out at another router") if held is not None else ""
            about = f" ({held.state}: {why})" if held is not None else ""
            yield [f"{mark} {candidate.url}{about}", _figure(candidate.score), *cells]

    def __str__(self) -> str:
        """A ranked table: `*` marks the winner, `-` endpoints that could not be chosen.

        A line above it says what the request would wait for, if it would.
        """
        rows = [["", "score", *self._columns(), *self._shares()], *self._rows()]
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = (
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
        return "\n".join([self._heading(), *self._waiting(), *lines])

    def _repr_html_(self) -> str:
        """The same table, for notebooks."""
        names = ["", "score", *self._columns(), *self._shares()]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        caption = "<br>".join(html.escape(line) for line in [self._heading(), *self._waiting()])
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"


def _figure(value: float) -> str:
    """Four figures, without an exponent where it can be had."""
    if math.isnan(value):
        return ""
    if value and abs(value) < 0.05:
        return f"{value:.2g}"
    return f"{value:,.1f}" if abs(value) < 1e5 else f"{value:,.0f}"
