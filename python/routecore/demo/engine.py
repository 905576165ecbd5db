"""A simulated vLLM engine: its scheduler, its prefix cache and its HTTP face."""

import asyncio
import itertools
import json
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

BLOCK_TOKENS = 16
CHARS_PER_TOKEN = 4
_BLOCK_CHARS = BLOCK_TOKENS * CHARS_PER_TOKEN
_TICK_SECONDS = 0.004  # of the wall clock: tokens that fall due within one are sent together


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


class BlockCache:
    """KV blocks: shared while in use, evicted least recently freed first afterwards."""

    def __init__(self, blocks: int) -> None:
        self.total = blocks
        self.active: dict[int, int] = {}
        self.free: OrderedDict[int, None] = OrderedDict()

    def match(self, keys: list[int], limit: int) -> int:
        """Length of the longest cached run from the start, at most `limit` blocks."""
        run = 0
        while run < min(limit, len(keys)) and (keys[run] in self.active or keys[run] in self.free):
            run += 1
        return run

    def take(self, key: int) -> bool:
        """Use a block, evicting a free one if need be; False if all are in use."""
        if key in self.active:
            self.active[key] += 1
            return True
        if key in self.free:
            del self.free[key]
        elif len(self.active) >= self.total:
            return False
        elif len(self.active) + len(self.free) >= self.total:
            self.free.popitem(last=False)
        self.active[key] = 1
        return True

    def release(self, keys: list[int]) -> None:
        """Give up the blocks of one request; its tail will be evicted before its head."""
        for key in reversed(keys):
            self.active[key] -= 1
            if not self.active[key]:
                del self.active[key]
                self.free[key] = None


@dataclass(eq=False)
class Sequence:
    """One request inside the engine; counts are tokens."""

    prompt: int
    keys: list[int]
    output: int
    known: int = 0
    done: int = 0
    emitted: int = 0
    cached: int = 0
    started: bool = False
    held: list[int] = field(default_factory=list)
    tokens: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)


class Scheduler:
    """Decode first, chunked prefill, first come first served, on simulated milliseconds."""

    def __init__(
        self,
        *,
        profile: Profile | None = None,
        kv_tokens: int = 131_072,
        budget: int = 8192,
        max_sequences: int = 256,
    ) -> None:
        self.profile = profile or Profile()
        self.blocks = kv_tokens // BLOCK_TOKENS
        self.budget, self.max_sequences = budget, max_sequences
        self._fresh = itertools.count(-1, -1)
        self.reset()

    def reset(self) -> None:
        """Forget requests, cache and counts."""
        self.cache = BlockCache(self.blocks)
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

    def _drop(self, sequence: Sequence) -> None:
        self.cache.release(sequence.held)
        sequence.held = []

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        while len(sequence.held) * BLOCK_TOKENS < tokens:
            index = len(sequence.held)
            key = sequence.keys[index] if index < len(sequence.keys) else next(self._fresh)
            if not self.cache.take(key):
                return False
            sequence.held.append(key)
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


def prompt_text(body: dict[str, Any]) -> str:
    """The text an engine would see of a chat or completions body."""
    if "messages" not in body:
        prompt = body.get("prompt", "")
        return prompt if isinstance(prompt, str) else json.dumps(prompt)
    parts = []
    for message in body["messages"]:
        content = message.get("content", "")
        parts.append(
            f"<{message.get('role')}>{content if isinstance(content, str) else json.dumps(content)}"
        )
    return "\n".join(parts)


def block_keys(text: str) -> list[int]:
    """Chained keys of the full blocks of a text, never negative."""
    keys, parent = [], 0
    for start in range(0, len(text) - _BLOCK_CHARS + 1, _BLOCK_CHARS):
        parent = hash((parent, text[start : start + _BLOCK_CHARS])) & 0x7FFF_FFFF_FFFF_FFFF
        keys.append(parent)
    return keys


class Engine:
    """The HTTP face of one scheduler; `app` is its ASGI application.

    Args:
        model: Name it serves.
        speed: Simulated seconds per second of the wall clock.
        scheduler: What it simulates; one with default figures if left out.
    """

    def __init__(
        self, *, model: str = "demo", speed: float = 1.0, scheduler: Scheduler | None = None
    ) -> None:
        self.model, self.speed = model, speed
        self.scheduler = scheduler or Scheduler()
        self._ids = itertools.count(1)
        self._ticker: asyncio.Task[None] | None = None
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    def reset(self) -> None:
        """Forget requests, cache and counts."""
        self.scheduler.reset()

    def _now(self) -> float:
        return time.perf_counter() * 1e3 * self.speed

    async def _tick(self) -> None:
        while self.scheduler.running or self.scheduler.waiting:
            self.scheduler.advance(self._now())
            await asyncio.sleep(_TICK_SECONDS)

    async def _complete(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            text = prompt_text(body)
            limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        except (ValueError, TypeError, AttributeError) as error:
            return _refuse(f"bad request body: {error}")
        tokens = max(1, -(-len(text) // CHARS_PER_TOKEN))
        sequence = Sequence(prompt=tokens, keys=block_keys(text), output=max(1, limit))
        if not self.scheduler.fits(sequence):
            return _refuse(f"{tokens} prompt tokens and {limit} more exceed the KV cache")
        chat = "messages" in body
        self.scheduler.add(sequence, self._now())
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        if body.get("stream"):
            return StreamingResponse(self._stream(sequence, chat), media_type="text/event-stream")
        try:
            for _ in range(sequence.output):
                await sequence.tokens.get()
        finally:
            self.scheduler.abort(sequence)
        answer = " tok" * sequence.output
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= (
            {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
        )
        return JSONResponse(self._frame(chat, [choice], usage(sequence), streamed=False))

    async def _stream(self, sequence: Sequence, chat: bool) -> AsyncIterator[str]:
        sent = 0
        try:
            while sent < sequence.output:
                ready = await sequence.tokens.get()
                while not sequence.tokens.empty():
                    ready += sequence.tokens.get_nowait()
                sent += ready
                text = " tok" * ready
                end = "length" if sent >= sequence.output else None
                choice: dict[str, Any] = {"index": 0, "finish_reason": end}
                choice |= {"delta": {"content": text}} if chat else {"text": text}
                frame = self._frame(chat, [choice], usage(sequence) if end else None)
                yield f"data: {json.dumps(frame)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.scheduler.abort(sequence)

    def _frame(
        self, chat: bool, choices: list[Any], used: dict[str, Any] | None, streamed: bool = True
    ) -> dict[str, Any]:
        kind = "chat.completion" if chat else "text_completion"
        return {
            "id": f"cmpl-{next(self._ids)}",
            "object": kind + (".chunk" if streamed and chat else ""),
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
            "usage": used,
        }

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def _health(self, _request: Request) -> Response:
        return Response(status_code=200)

    async def _metrics(self, _request: Request) -> Response:
        s = self.scheduler
        s.advance(self._now())
        label = f'{{model_name="{self.model}"}}'
        figures = (
            ("num_requests_running", "gauge", len(s.running)),
            ("num_requests_waiting", "gauge", len(s.waiting)),
            ("kv_cache_usage_perc", "gauge", len(s.cache.active) / s.cache.total),
            ("prefix_cache_hits_total", "counter", s.hits),
            ("prefix_cache_queries_total", "counter", s.queries),
        )
        lines = []
        for name, kind, value in figures:
            lines.append(f"# TYPE vllm:{name.removesuffix('_total')} {kind}")
            lines.append(f"vllm:{name}{label} {float(value)}")
        lines.append("# TYPE vllm:cache_config_info gauge")
        lines.append(
            f'vllm:cache_config_info{{block_size="{BLOCK_TOKENS}",'
            f'model_name="{self.model}",num_gpu_blocks="{s.blocks}"}} 1.0'
        )
        return PlainTextResponse("\n".join(lines) + "\n")


def usage(sequence: Sequence) -> dict[str, Any]:
    """The OpenAI usage object of a request."""
    return {
        "prompt_tokens": sequence.prompt,
        "completion_tokens": sequence.output,
        "total_tokens": sequence.prompt + sequence.output,
        "prompt_tokens_details": {"cached_tokens": sequence.cached},
    }


def _refuse(reason: str) -> Response:
    return JSONResponse({"error": {"message": reason, "code": 400}}, status_code=400)
