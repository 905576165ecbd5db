"""What generated workloads are drawn with: arrivals, lengths, prefixes, contexts that grow.

Block ids follow the tokens: whoever shares a prefix shares its ids, and the ids of a turn's output
are those with which the next turn's prompt goes on.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from routecore.replay.columns import Trace

BLOCK = 64
Draws = np.random.Generator


def arrivals(draws: Draws, n: int, rate: float, burstiness: float) -> list[float]:
    """Times in ms; gaps of a gamma law with that coefficient of variation (1: Poisson)."""
    shape = 1.0 / burstiness**2
    gaps = draws.gamma(shape, 1e3 / rate / shape, n)
    return [float(time) for time in np.cumsum(gaps)]


def zipf(draws: Draws, n: int, exponent: float, size: int) -> list[int]:
    """Ranks 0..n-1, the k-th with a chance proportional to 1 / k**exponent."""
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return [int(rank) for rank in draws.choice(n, size, p=weights / weights.sum())]


Length = tuple[float, float, int]
"""Tokens, lognormal: median, sigma, most."""


def tokens(draws: Draws, median: float, sigma: float, most: int) -> int:
    """A length, lognormal."""
    return int(np.clip(draws.lognormal(np.log(median), sigma), 1, most))


def shared(
    draws: Draws, n: int, median: float, sigma: float, most: int, ids: Iterator[int]
) -> list[tuple[int, list[int]]]:
    """Prefixes that several sessions share: length and ids of the full blocks."""
    lengths = [tokens(draws, median, sigma, most) for _ in range(n)]
    return [(length, list(itertools.islice(ids, length // BLOCK))) for length in lengths]


class Session:
    """A context that grows by turns.

    Attributes:
        after: Requests that must end before the next turn.
    """

    trace: Trace
    fresh: Iterator[int]
    ids: list[int]
    length: int

    def __init__(self, trace: Trace, prefix: tuple[int, list[int]], ids: Iterator[int]) -> None:
        self.trace, self.fresh = trace, ids
        self.length, self.ids = prefix[0], list(prefix[1])
        self.after: list[int] = []

    def turn(self, name: int, start: float, new: int, output: int, delay: float) -> None:
        """The next request: so many tokens more than the context, so long after the last answer."""
        prompt = self.length + new
        self.length = prompt + output
        missing = -(-self.length // BLOCK) - len(self.ids)
        self.ids.extend(itertools.islice(self.fresh, missing))
        number = self.trace.add(
            start, prompt, output, self.ids, session=name, after=self.after, delay_ms=delay
        )
        self.after = [number]

    def turns(
        self,
        draws: Draws,
        name: int,
        start: float,
        count: int,
        pause_ms: float,
        new: Length,
        output: Length,
        requests: int,
    ) -> None:
        """So many turns with pauses between them; fewer once the trace has all its requests."""
        for turn in range(count):
            pause = float(draws.exponential(pause_ms)) if turn else 0.0
            self.turn(name, start, tokens(draws, *new), tokens(draws, *output), pause)
            if len(self.trace) >= requests:
                return
