"""Generated multi-turn workloads: what a trace file would say, drawn from a seed.

Block ids follow the tokens: whoever shares a prefix shares its ids, and the ids of a turn's output
are those with which the next turn's prompt goes on.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from routecore.errors import RouteError
from routecore.replay.columns import Trace

BLOCK = 64
Draws = np.random.Generator


def _arrivals(draws: Draws, n: int, rate: float, burstiness: float) -> list[float]:
    """Times in ms; gaps of a gamma law with that coefficient of variation (1: Poisson)."""
    shape = 1.0 / burstiness**2
    gaps = draws.gamma(shape, 1e3 / rate / shape, n)
    return [float(time) for time in np.cumsum(gaps)]


def _zipf(draws: Draws, n: int, exponent: float, size: int) -> list[int]:
    """Ranks 0..n-1, the k-th with a chance proportional to 1 / k**exponent."""
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return [int(rank) for rank in draws.choice(n, size, p=weights / weights.sum())]


def _tokens(draws: Draws, median: float, sigma: float, most: int) -> int:
    return int(np.clip(draws.lognormal(np.log(median), sigma), 1, most))


def _shared(
    draws: Draws, n: int, median: float, sigma: float, most: int, ids: Iterator[int]
) -> list[tuple[int, list[int]]]:
    """Prefixes that several sessions share: length and ids of the full blocks."""
    lengths = [_tokens(draws, median, sigma, most) for _ in range(n)]
    return [(length, list(itertools.islice(ids, length // BLOCK))) for length in lengths]


class _Session:
    """A context that grows by turns."""

    def __init__(self, trace: Trace, prefix: tuple[int, list[int]], ids: Iterator[int]) -> None:
        self.trace, self.fresh = trace, ids
        self.length, self.ids = prefix[0], list(prefix[1])
        self.last: int | None = None

    def turn(self, name: int, start: float, new: int, output: int, delay: float) -> None:
        prompt = self.length + new
        self.length = prompt + output
        missing = -(-self.length // BLOCK) - len(self.ids)
        self.ids.extend(itertools.islice(self.fresh, missing))
        after = [] if self.last is None else [self.last]
        self.last = self.trace.add(
            start, prompt, output, self.ids, session=name, after=after, delay_ms=delay
        )


def chat(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Chats behind 24 shared system prompts (Zipf): 4.5 turns on average, seconds to think."""
    trace, ids = Trace(BLOCK, "chat"), itertools.count()
    systems = _shared(draws, 24, 1200, 0.6, 6000, ids)
    mean_turns = 4.5
    starts = _arrivals(draws, requests, rate / mean_turns, burstiness)
    for name, (start, rank) in enumerate(zip(starts, _zipf(draws, 24, 1.1, requests), strict=True)):
        session = _Session(trace, systems[rank], ids)
        for turn in range(int(draws.geometric(1 / mean_turns))):
            think = float(draws.exponential(8e3)) if turn else 0.0
            new, output = _tokens(draws, 90, 1.1, 8000), _tokens(draws, 220, 0.8, 2000)
            session.turn(name, start, new, output, think)
            if len(trace) >= requests:
                return trace
    return trace


def agentic(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Agents on long tasks: 6 tool sets of 8k tokens, contexts to 120k, 20 calls on average."""
    trace, ids = Trace(BLOCK, "agentic"), itertools.count()
    tools = _shared(draws, 6, 8000, 0.3, 16_000, ids)
    mean_turns = 20.0
    starts = _arrivals(draws, requests, rate / mean_turns, burstiness)
    for name, (start, rank) in enumerate(zip(starts, _zipf(draws, 6, 1.0, requests), strict=True)):
        session = _Session(trace, tools[rank], ids)
        task = _tokens(draws, 12_000, 0.8, 60_000)
        for turn in range(1 + int(draws.poisson(mean_turns - 1))):
            wait = float(draws.lognormal(np.log(1500), 1.0)) if turn else 0.0
            new = _tokens(draws, 900, 1.2, 16_000) if turn else task
            session.turn(name, start, new, _tokens(draws, 160, 0.9, 4000), wait)
            if len(trace) >= requests:
                return trace
            if session.length > 120_000:
                break
    return trace


def documents(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Questions about 160 shared documents of some 12k tokens (Zipf), 1.6 questions a reader."""
    trace, ids = Trace(BLOCK, "documents"), itertools.count()
    papers = _shared(draws, 160, 12_000, 0.7, 60_000, ids)
    mean_turns = 1.6
    starts = _arrivals(draws, requests, rate / mean_turns, burstiness)
    ranks = _zipf(draws, 160, 0.9, requests)
    for name, (start, rank) in enumerate(zip(starts, ranks, strict=True)):
        session = _Session(trace, papers[rank], ids)
        for turn in range(int(draws.geometric(1 / mean_turns))):
            think = float(draws.exponential(15e3)) if turn else 0.0
            session.turn(
                name, start, _tokens(draws, 60, 0.8, 1000), _tokens(draws, 180, 0.7, 1500), think
            )
            if len(trace) >= requests:
                return trace
    return trace


WORKLOADS: dict[str, Callable[[int, float, float, Draws], Trace]] = {
    "chat": chat,
    "agentic": agentic,
    "documents": documents,
}
"""Name → generator."""


def generate(
    kind: str = "chat",
    *,
    requests: int = 4000,
    rate: float = 8.0,
    burstiness: float = 1.0,
    seed: int = 0,
) -> Trace:
    """Draw a workload.

    Args:
        kind: "chat", "agentic" or "documents".
        requests: How many, over all sessions.
        rate: Requests a second that new sessions bring in, on average.
        burstiness: Coefficient of variation of the gaps between new sessions; 1 is Poisson.
        seed: The same seed gives the same workload.

    Raises:
        RouteError: An unknown kind, or a number out of range.
    """
    if kind not in WORKLOADS:
        raise RouteError(f"unknown workload {kind!r}; valid: {', '.join(WORKLOADS)}")
    if not 1 <= requests <= 10**8:
        raise RouteError(f"requests: expected from 1 to 10**8, got {requests}")
    for name, value in (("rate", rate), ("burstiness", burstiness)):
        if not 1e-6 <= value <= 1e6:
            raise RouteError(f"{name}: expected a number from 1e-6 to 1e6, got {value}")
    return WORKLOADS[kind](requests, rate, burstiness, np.random.default_rng(seed))
