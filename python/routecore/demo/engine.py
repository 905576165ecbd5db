"""A simulated vLLM engine: the HTTP face of a scheduler."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from routecore.demo.scheduler import Scheduler
from routecore.demo.sequence import BLOCK_TOKENS, Sequence
from routecore.endpoints.ranks import HEADER

CHARS_PER_TOKEN = 4
_BLOCK_CHARS = BLOCK_TOKENS * CHARS_PER_TOKEN
_TICK_SECONDS = 0.004  # of the wall clock: tokens that fall due within one are sent together


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


def toy_tokens(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Token ids of a text: each four characters are one of 131,072, the same everywhere."""
    text += " " * (-len(text) % CHARS_PER_TOKEN)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    words = points.reshape(-1, CHARS_PER_TOKEN).astype(np.uint64)
    weights = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], np.uint64)
    mixed = (words * weights).sum(axis=1) * np.uint64(0x9E3779B97F4A7C15)
    ids: np.ndarray[Any, np.dtype[np.uint32]] = (mixed >> np.uint64(47)).astype(np.uint32)
    return ids


class Engine:
    """The HTTP face of one scheduler, or of one for each data-parallel rank.

    `app` is its ASGI application. A request goes to the rank that its header names, else to the one
    with the fewest.

    Args:
        model: Name it serves.
        speed: Simulated seconds per second of the wall clock.
        scheduler: What it simulates; one with default figures if left out.
        more: The schedulers of its further ranks.
    """

    model: str
    speed: float

    def __init__(
        self,
        *,
        model: str = "demo",
        speed: float = 1.0,
        scheduler: Scheduler | None = None,
        more: tuple[Scheduler, ...] = (),
    ) -> None:
        self.model, self.speed = model, speed
        self.sick = False  # while it is, it answers every request with a 500
        self.scheduler: Scheduler = scheduler or Scheduler()
        self.ranks: tuple[Scheduler, ...] = (self.scheduler, *more)
        self._ids = itertools.count(1)
        self._ticker: asyncio.Task[None] | None = None
        self.app: Starlette = Starlette(
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
        for scheduler in self.ranks:
            scheduler.reset()

    def _now(self) -> float:
        return time.perf_counter() * 1e3 * self.speed

    async def _tick(self) -> None:
        while any(scheduler.running or scheduler.waiting for scheduler in self.ranks):
            for scheduler in self.ranks:
                scheduler.advance(self._now())
            await asyncio.sleep(_TICK_SECONDS)

    def _rank(self, request: Request) -> Scheduler | None:
        """Where the request goes; None if it names a rank that there is not."""
        named = request.headers.get(HEADER)
        if named is None:
            return min(self.ranks, key=lambda s: len(s.running) + len(s.waiting))
        is_there = named.isdecimal() and int(named) < len(self.ranks)
        return self.ranks[int(named)] if is_there else None

    async def _complete(self, request: Request) -> Response:
        if self.sick:
            return _refuse("this engine is sick", 500)
        try:
            body = json.loads(await request.body())
            text = prompt_text(body)
            limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        except (ValueError, TypeError, AttributeError) as error:
            return _refuse(f"bad request body: {error}")
        scheduler = self._rank(request)
        if scheduler is None:
            return _refuse(f"{HEADER}: expected a rank from 0 to {len(self.ranks) - 1}")
        tokens = max(1, -(-len(text) // CHARS_PER_TOKEN))
        sequence = Sequence(prompt=tokens, keys=block_keys(text), output=max(1, limit))
        if scheduler.log is not None:
            sequence.token_ids = toy_tokens(text)
        if not scheduler.fits(sequence):
            return _refuse(f"{tokens} prompt tokens and {limit} more exceed the KV cache")
        chat = "messages" in body
        scheduler.add(sequence, self._now())
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        if body.get("stream"):
            stream = self._stream(scheduler, sequence, chat)
            return StreamingResponse(stream, media_type="text/event-stream")
        try:
            for _ in range(sequence.output):
                await sequence.tokens.get()
        finally:
            scheduler.abort(sequence)
        answer = " tok" * sequence.output
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= (
            {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
        )
        return JSONResponse(self._frame(chat, [choice], usage(sequence), streamed=False))

    async def _stream(
        self, scheduler: Scheduler, sequence: Sequence, chat: bool
    ) -> AsyncIterator[str]:
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
            scheduler.abort(sequence)

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
        lines: list[str] = []
        for rank, scheduler in enumerate(self.ranks):
            scheduler.advance(self._now())
            lines += self._figures(rank, scheduler, heads=rank == 0)
        return PlainTextResponse("\n".join(lines) + "\n")

    def _figures(self, rank: int, s: Scheduler, *, heads: bool) -> list[str]:
        labels = f'engine="{rank}",model_name="{self.model}"'
        size = f'block_size="{BLOCK_TOKENS}",num_gpu_blocks="{s.blocks}"'
        figures = (
            ("num_requests_running", "gauge", "", len(s.running)),
            ("num_requests_waiting", "gauge", "", len(s.waiting)),
            ("kv_cache_usage_perc", "gauge", "", len(s.cache.active) / s.cache.total),
            ("prefix_cache_hits_total", "counter", "", s.hits),
            ("prefix_cache_queries_total", "counter", "", s.queries),
            ("cache_config_info", "gauge", size + ",", 1.0),
        )
        lines = []
        for name, kind, more, value in figures:
            if heads:
                lines.append(f"# TYPE vllm:{name.removesuffix('_total')} {kind}")
            lines.append(f"vllm:{name}{{{more}{labels}}} {float(value)}")
        return lines


def usage(sequence: Sequence) -> dict[str, Any]:
    """The OpenAI usage object of a request."""
    return {
        "prompt_tokens": sequence.prompt,
        "completion_tokens": sequence.output,
        "total_tokens": sequence.prompt + sequence.output,
        "prompt_tokens_details": {"cached_tokens": sequence.cached},
    }


def _refuse(reason: str, status: int = 400) -> Response:
    return JSONResponse({"error": {"message": reason, "code": status}}, status_code=status)
