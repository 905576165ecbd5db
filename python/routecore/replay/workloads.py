"""Generated multi-turn workloads: what a trace file would say, drawn from a seed."""

import itertools
from collections.abc import Callable

import numpy as np

from routecore.errors import RouteError, unknown
from routecore.replay.columns import Trace
from routecore.replay.drawing import BLOCK, Draws, Session, arrivals, shared, tokens, zipf
from routecore.replay.rl import rl


def chat(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Chats behind 24 shared system prompts (Zipf): 4.5 turns on average, seconds to think."""
    trace, ids = Trace(BLOCK, "chat"), itertools.count()
    systems = shared(draws, 24, 1200, 0.6, 6000, ids)
    mean_turns = 4.5
    starts = arrivals(draws, requests, rate / mean_turns, burstiness)
    for name, (start, rank) in enumerate(zip(starts, zipf(draws, 24, 1.1, requests), strict=True)):
        session = Session(trace, systems[rank], ids)
        turns = int(draws.geometric(1 / mean_turns))
        session.turns(draws, name, start, turns, 8e3, (90, 1.1, 8000), (220, 0.8, 2000), requests)
        if len(trace) >= requests:
            return trace
    return trace


def agentic(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Agents on long tasks: 6 tool sets of 8k tokens, contexts to 120k, 20 calls on average."""
    trace, ids = Trace(BLOCK, "agentic"), itertools.count()
    tools = shared(draws, 6, 8000, 0.3, 16_000, ids)
    mean_turns = 20.0
    starts = arrivals(draws, requests, rate / mean_turns, burstiness)
    for name, (start, rank) in enumerate(zip(starts, zipf(draws, 6, 1.0, requests), strict=True)):
        session = Session(trace, tools[rank], ids)
        task = tokens(draws, 12_000, 0.8, 60_000)
        for turn in range(1 + int(draws.poisson(mean_turns - 1))):
            wait = float(draws.lognormal(np.log(1500), 1.0)) if turn else 0.0
            new = tokens(draws, 900, 1.2, 16_000) if turn else task
            session.turn(name, start, new, tokens(draws, 160, 0.9, 4000), wait)
            if len(trace) >= requests:
                return trace
            if session.length > 120_000:
                break
    return trace


def documents(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Questions about 160 shared documents of some 12k tokens (Zipf), 1.6 questions a reader."""
    trace, ids = Trace(BLOCK, "documents"), itertools.count()
    papers = shared(draws, 160, 12_000, 0.7, 60_000, ids)
    mean_turns = 1.6
    starts = arrivals(draws, requests, rate / mean_turns, burstiness)
    ranks = zipf(draws, 160, 0.9, requests)
    for name, (start, rank) in enumerate(zip(starts, ranks, strict=True)):
        session = Session(trace, papers[rank], ids)
        turns = int(draws.geometric(1 / mean_turns))
        session.turns(draws, name, start, turns, 15e3, (60, 0.8, 1000), (180, 0.7, 1500), requests)
        if len(trace) >= requests:
            return trace
    return trace


def mixed(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Prompts of tens and of tens of thousands of tokens on the same engines, shared and not.

    Half are one-off prompts of some 60 tokens, one in six a question about one of 40 shared papers
    of 15k tokens, one in twelve a prompt of 20k that nobody shares, the rest turns of chats.
    """
    trace, ids = Trace(BLOCK, "mixed"), itertools.count()
    papers = shared(draws, 40, 15_000, 0.5, 60_000, ids)
    systems = shared(draws, 12, 1200, 0.6, 6000, ids)
    paper_ranks, system_ranks = zipf(draws, 40, 0.9, requests), zipf(draws, 12, 1.0, requests)
    # A quarter of the sessions are chats of two turns on average, and rate counts requests.
    starts = arrivals(draws, requests, rate / 1.25, burstiness)
    for name, start in enumerate(starts):
        kind, fresh = draws.random(), Session(trace, (0, []), ids)
        if kind < 0.5:
            session, new, output, turns = fresh, 60, 120, 1
        elif kind < 2 / 3:
            session = Session(trace, papers[paper_ranks[name]], ids)
            new, output, turns = 60, 150, 1
        elif kind < 0.75:
            session, new, output, turns = fresh, 20_000, 200, 1
        else:
            session, new, output = Session(trace, systems[system_ranks[name]], ids), 120, 200
            turns = int(draws.geometric(0.5))
        lengths = (new, 0.6, 60_000), (output, 0.7, 2000)
        session.turns(draws, name, start, turns, 6e3, *lengths, requests)
        if len(trace) >= requests:
            return trace
    return trace


def short(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Answers of 1 to 20 tokens behind long shared prompts: labels, tool calls, terse chats.

    Half are one-off inputs of some 150 tokens behind 48 instructions of 3k tokens (Zipf), half are
    turns of chats behind 6 system prompts, 4.5 turns on average.
    """
    trace, ids = Trace(BLOCK, "short"), itertools.count()
    instructions = shared(draws, 48, 3000, 0.5, 12_000, ids)
    systems = shared(draws, 6, 1500, 0.4, 6000, ids)
    instruction_ranks = zipf(draws, 48, 0.9, requests)
    system_ranks = zipf(draws, 6, 0.8, requests)
    mean_turns = 4.5
    starts = arrivals(draws, requests, rate * (1 + mean_turns) / (2 * mean_turns), burstiness)
    for name, start in enumerate(starts):
        chats = draws.random() < 1 / (1 + mean_turns)
        prefix = systems[system_ranks[name]] if chats else instructions[instruction_ranks[name]]
        session = Session(trace, prefix, ids)
        for turn in range(int(draws.geometric(1 / mean_turns)) if chats else 1):
            think = float(draws.exponential(4e3)) if turn else 0.0
            answer = int(draws.integers(4, 21)) if chats else int(draws.integers(1, 9))
            session.turn(name, start, tokens(draws, 150, 0.7, 4000), answer, think)
            if len(trace) >= requests:
                return trace
    return trace


BURST_S, EVERY_S = 5.0, 30.0


def burst(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """All sessions of half a minute start within 5 s, the first before anything is learned.

    Questions about 60 shared documents of some 6k tokens (Zipf), 2 questions a reader.
    """
    trace, ids = Trace(BLOCK, "burst"), itertools.count()
    papers, mean_turns = shared(draws, 60, 6000, 0.7, 40_000, ids), 2.0
    ranks = zipf(draws, 60, 0.9, requests)
    for name, even in enumerate(arrivals(draws, requests, rate / mean_turns, burstiness)):
        minute, within = divmod(even, 1e3 * EVERY_S)
        start = minute * 1e3 * EVERY_S + within * BURST_S / EVERY_S
        session = Session(trace, papers[ranks[name]], ids)
        turns = int(draws.geometric(1 / mean_turns))
        session.turns(draws, name, start, turns, 2e3, (80, 0.8, 1000), (150, 0.7, 1500), requests)
        if len(trace) >= requests:
            return trace
    return trace


def terse(requests: int, rate: float, burstiness: float, draws: Draws) -> Trace:
    """Chats of 2 to 8 turns and answers of 4 to 23 tokens, behind 6 system prompts of 1k tokens.

    Turns are of 85 to 340 tokens, some 2.5 s after the answer before.
    """
    trace, ids = Trace(BLOCK, "terse"), itertools.count()
    systems, mean_turns = shared(draws, 6, 1000, 0.05, 1200, ids), 5.0
    starts = arrivals(draws, requests, rate / mean_turns, burstiness)
    ranks = np.minimum(draws.exponential(1 / 0.6, requests), 5).astype(int)
    for name, (start, rank) in enumerate(zip(starts, ranks, strict=True)):
        session = Session(trace, systems[rank], ids)
        for turn in range(int(draws.integers(2, 9))):
            think = float(draws.exponential(2.5e3)) if turn else 0.0
            new, output = int(draws.integers(85, 341)), int(draws.integers(4, 24))
            session.turn(name, start, new, output, think)
            if len(trace) >= requests:
                return trace
    return trace


WORKLOADS: dict[str, Callable[[int, float, float, Draws], Trace]] = {
    "chat": chat,
    "agentic": agentic,
    "documents": documents,
    "mixed": mixed,
    "short": short,
    "burst": burst,
    "rl": rl,
    "terse": terse,
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
        kind: "chat", "agentic", "documents", "mixed", "short", "burst", "rl" or "terse".
        requests: How many, over all sessions.
        rate: Requests a second that new sessions bring in, on average.
        burstiness: Coefficient of variation of the gaps between new sessions; 1 is Poisson.
        seed: The same seed gives the same workload.

    Raises:
        RouteError: An unknown kind, or a number out of range.
    """
    if kind not in WORKLOADS:
        raise RouteError(f"workload: unknown {unknown(kind, WORKLOADS)}")
    if not 1 <= requests <= 10**8:
        raise RouteError(f"requests: expected from 1 to 10**8, got {requests}")
    for name, value in (("rate", rate), ("burstiness", burstiness)):
        if not 1e-6 <= value <= 1e6:
            raise RouteError(f"{name}: expected a number from 1e-6 to 1e6, got {value}")
    return WORKLOADS[kind](requests, rate, burstiness, np.random.default_rng(seed))
