"""The scheduler of a simulated engine: step times, paged prefix cache, continuous batching."""

import itertools
from collections import deque
from dataclasses import dataclass

from routecore.demo.block_cache import BlockCache
from routecore.demo.block_log import BlockLog
from routecore.demo.sequence import BLOCK_TOKENS, Sequence


@dataclass(frozen=True)
class Profile:
    """Step times in milliseconds; the default is Llama-3.1-70B on 8 A100."""

    floor: float = 17.56
    prefill: float = 29.9
    per_token: float = 0.09217
    per_pair: float = 2.62e-6
    per_sequence: float = 0.0685
    per_context_token: float = 2.62e-5

    def step_ms(self, tokens: int, pairs: float, sequences: int, context: int) -> float:
        """Time of a step: prompt tokens and their attention pairs, decodes and their context."""
        decode = self.per_sequence * sequences + self.per_context_token * context
        chunks = self.per_token * tokens + self.per_pair * pairs
        if tokens and not sequences:
            return max(self.floor, self.prefill + chunks)
        return self.floor + chunks + decode


class Scheduler:
    """Decode first, chunked prefill, first come first served, on simulated milliseconds.

    With a `log`, it receives what happens to the blocks of prompts.
    """

    budget: int
    max_sequences: int
    hits: int
    queries: int
    preemptions: int

    def __init__(
        self,
        *,
        profile: Profile | None = None,
        kv_tokens: int = 131_072,
        budget: int = 8192,
        max_sequences: int = 256,
        log: BlockLog | None = None,
    ) -> None:
        self.profile: Profile = profile or Profile()
        self.blocks: int = kv_tokens // BLOCK_TOKENS
        self.budget, self.max_sequences = budget, max_sequences
        self._fresh = itertools.count(-1, -1)
        self.log = log
        self.reset()

    def reset(self) -> None:
        """Forget requests, cache and counts."""
        self.cache: BlockCache = BlockCache(self.blocks, self.log)
        if self.log is not None:
            self.log.cleared()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.hits = self.queries = self.preemptions = 0
        self._plan: dict[Sequence, int] = {}
        self._step_end: float | None = None

    def fits(self, sequence: Sequence) -> bool:
        """Whether the engine could ever hold the request."""
        return -(-(sequence.prompt + sequence.output) // BLOCK_TOKENS) <= self.blocks

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue a request; it is looked at when the next step starts."""
        self.advance(now)
        sequence.known = sequence.prompt
        self.waiting.append(sequence)
        if self._step_end is None:
            self._start(now)
        if self.log is not None:
            self.log.flush()

    def abort(self, sequence: Sequence) -> None:
        """Drop a request wherever it is; unknown ones change nothing."""
        self._plan.pop(sequence, None)
        if sequence in self.running:
            self.running.remove(sequence)
            self._drop(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def advance(self, now: float) -> None:
        """Finish every step that ends by now."""
        while self._step_end is not None and self._step_end <= now:
            end = self._step_end
            self._finish()
            self._start(end)
        if self.log is not None:
            self.log.flush()

    def _drop(self, sequence: Sequence) -> None:
        self.cache.release(sequence.held)
        sequence.held = []

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        while len(sequence.held) * BLOCK_TOKENS < tokens:
            index = len(sequence.held)
            key = sequence.keys[index] if index < len(sequence.keys) else next(self._fresh)
            new = key not in self.cache.active and key not in self.cache.free
            if not self.cache.take(key):
                return False
            sequence.held.append(key)
            if new and self.log is not None and index < len(sequence.keys):
                self.log.stored(sequence, index)
        return True

    def _preempt(self) -> Sequence:
        victim = self.running.pop()
        self._plan.pop(victim, None)
        self._drop(victim)
        victim.done = 0
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim

    def _start(self, now: float) -> None:
        self._plan = {}
        budget, preempted = self.budget, False
        for sequence in list(self.running):
            chunk = min(sequence.known - sequence.done, budget)
            if sequence not in self.running or not chunk:
                continue
            while not self._grow(sequence, sequence.done + chunk):
                preempted = True
                if self._preempt() is sequence:
                    break
            else:
                self._plan[sequence] = chunk
                budget -= chunk
        while self.waiting and budget and not preempted and len(self.running) < self.max_sequences:
            if not self._admit(self.waiting[0], budget):
                break
            budget -= self._plan[self.running[-1]]
        self._step_end = now + self._duration() if self._plan else None

    def _admit(self, sequence: Sequence, budget: int) -> bool:
        run = self.cache.match(sequence.keys, (sequence.known - 1) // BLOCK_TOKENS)
        shared = sum(key in self.cache.active for key in sequence.keys[:run])
        needed = -(-sequence.known // BLOCK_TOKENS) - shared
        if needed > self.cache.total - len(self.cache.active):
            return False
        self.waiting.popleft()
        self.running.append(sequence)
        sequence.done = run * BLOCK_TOKENS
        if not sequence.started:
            sequence.started, sequence.cached = True, sequence.done
            self.hits += sequence.done
            self.queries += sequence.prompt
        chunk = min(sequence.known - sequence.done, budget)
        self._grow(sequence, sequence.done + chunk)
        self._plan[sequence] = chunk
        return True

    def _duration(self) -> float:
        tokens = decodes = context = 0
        pairs = 0.0
        for sequence, chunk in self._plan.items():
            if sequence.emitted and chunk == 1:
                decodes += 1
                context += sequence.known
            else:
                tokens += chunk
                pairs += chunk * (sequence.done + chunk / 2)
        return self.profile.step_ms(tokens, pairs, decodes, context)

    def _finish(self) -> None:
        for sequence, chunk in self._plan.items():
            sequence.done += chunk
            if sequence.done < sequence.known:
                continue
            sequence.emitted += 1
            sequence.known += 1
            sequence.tokens.put_nowait(1)
            if sequence.emitted >= sequence.output:
                self.running.remove(sequence)
                self._drop(sequence)
