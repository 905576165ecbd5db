"""Rollouts of reinforcement learning: steps of groups, which all end before the next begins."""

import itertools
from collections.abc import Iterator

import numpy as np

from routecore.replay.columns import Trace
from routecore.replay.drawing import BLOCK, Draws, Session, tokens

GROUP = 16
"""Samples of one prompt."""
GROUPS_PER_RATE = 4
"""Prompts of a step, for each request a second that was asked for."""
PAUSE_MS = 20e3
"""From the last sample of a step to the first of the next: training, and new weights."""
_HEAD = 400  # tokens that all prompts begin with
_MOST_TURNS = 16
_LONGEST = 48_000  # tokens of a context, above which an agent gives up


def rl(requests: int, rate: float, _burstiness: float, draws: Draws) -> Trace:
    """Steps of RL: 4 · `rate` prompts in 16 samples each, all at once; then 20 s of training.

    Half of the prompts are problems of some 600 tokens, answered in one turn of some 1,200 with a
    long tail. The others are tasks for agents: some 6k tokens of task and tools, 6 turns on
    average, each sample its own way. All share a head of 400 tokens. New weights leave nothing in
    any cache, which new block ids say. Each step begins with a call of one token, which waits for
    all samples of the step before; the first turns follow it.
    """
    trace, ids, names = Trace(BLOCK, "rl"), itertools.count(), itertools.count()
    samples: list[Session] = []
    while True:
        ends = [number for sample in samples for number in sample.after]
        begin = trace.add(0.0, 1, 1, after=ends, delay_ms=PAUSE_MS if ends else 0.0)
        head = list(itertools.islice(ids, _HEAD // BLOCK))
        samples = []
        for group in range(max(1, round(GROUPS_PER_RATE * rate))):
            is_task = group % 2 == 1
            size = tokens(draws, 6000, 0.5, 24_000) if is_task else tokens(draws, 200, 0.8, 4000)
            prompt = head + list(itertools.islice(ids, (_HEAD + size) // BLOCK - len(head)))
            for _ in range(GROUP):
                sample = Session(trace, (_HEAD + size, prompt), ids)
                sample.after, name = [begin], next(names)
                samples.append(sample)
                for new, output, wait in _turns(draws, is_task):
                    if len(trace) >= requests:
                        return trace
                    if sample.length > _LONGEST:
                        break
                    sample.turn(name, 0.0, new, output, wait)


def _turns(draws: Draws, is_task: bool) -> Iterator[tuple[int, int, float]]:
    """Of a sample: tokens that come to its context, tokens of the answer, ms before it."""
    if not is_task:
        yield 0, tokens(draws, 800, 0.9, 8192), 0.0
        return
    for turn in range(min(int(draws.geometric(1 / 6)), _MOST_TURNS)):
        new = tokens(draws, 600, 1.0, 8000) if turn else 0
        wait = float(draws.lognormal(np.log(1500), 1.0)) if turn else 0.0
        yield new, tokens(draws, 250, 0.8, 4000), wait
