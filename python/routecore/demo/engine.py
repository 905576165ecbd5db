"""A simulated vLLM engine: paged prefix cache, continuous batching, its HTTP interface."""

import asyncio
import json
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

BLOCK_TOKENS = 16
TOKEN_CHARS = 4
TOKEN_BUDGET = 8192
STREAM_EVERY = 8


def render(body: dict[str, Any]) -> str:
    """The text the engine sees: the prompt, or the messages in a chat template."""
    if "messages" in body:
        turns = (f"<{m.get('role')}>{m.get('content')}\n" for m in body["messages"])
        return "".join(turns) + "<assistant>"
    return str(body["prompt"])


def answer(text: str, tokens: int) -> str:
    """What the engine answers: a token is four characters, fixed by the prompt."""
    start = zlib.crc32(text.encode())
    return "".join(f"{(start + 7 * i) % 1000:03d} " for i in range(tokens))


def block_hashes(text: str) -> list[int]:
    """A hash per full block, each over all the text before it."""
    size = BLOCK_TOKENS * TOKEN_CHARS
    hashes: list[int] = []
    parent = 0
    for at in range(0, len(text) - size + 1, size):
        parent = hash((parent, text[at : at + size]))
        hashes.append(parent)
    return hashes


@dataclass(eq=False)
class Sequence:
    """A request inside the engine."""

    text: str
    prompt_tokens: int
    max_tokens: int
    blocks: list[int]
    cached: int = 0
    computed: int = 0
    generated: int = 0
    private: int = 0
    aborted: bool = False
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> bool:
        return self.generated >= self.max_tokens


class BlockCache:
    """KV blocks: held by requests, or free with content that may be found again (LRU)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[int, int] = {}
        self.free: OrderedDict[int, None] = OrderedDict()
        self.private = 0

    @property
    def used(self) -> int:
        return len(self.held) + self.private

    def admit(self, seq: Sequence) -> bool:
        """Take the blocks of prompt and answer, or nothing if they do not fit."""
        hits = 0
        for block in seq.blocks[: (seq.prompt_tokens - 1) // BLOCK_TOKENS]:
            if block not in self.held and block not in self.free:
                break
            hits += 1
        total = -(-(seq.prompt_tokens + seq.max_tokens) // BLOCK_TOKENS)
        new = sum(block not in self.held for block in seq.blocks)
        private = total - len(seq.blocks)
        if self.used + new + private > self.capacity:
            return False
        for block in seq.blocks:
            self.free.pop(block, None)
            self.held[block] = self.held.get(block, 0) + 1
        seq.private = private
        self.private += private
        seq.cached = seq.computed = hits * BLOCK_TOKENS
        self._evict()
        return True

    def release(self, seq: Sequence, keep: list[int]) -> None:
        """Give the blocks back, tail first, so that tails are evicted before heads."""
        self.private -= seq.private
        for block in reversed(keep[len(seq.blocks) :]):
            if block not in self.held:
                self.free.pop(block, None)
                self.free[block] = None
        for i, block in reversed(list(enumerate(seq.blocks))):
            self.held[block] -= 1
            if not self.held[block]:
                del self.held[block]
                if i < len(keep):
                    self.free[block] = None
        self._evict()

    def _evict(self) -> None:
        while self.free and self.used + len(self.free) > self.capacity:
            self.free.popitem(last=False)


class Engine:
    """One engine: `app` is its HTTP interface, `run()` its step loop."""

    def __init__(
        self, model: str = "demo", *, kv_tokens: int = 60_000, time_scale: float = 1.0
    ) -> None:
        self.model = model
        self.kv_blocks = kv_tokens // BLOCK_TOKENS
        self.time_scale = time_scale
        self._wake = asyncio.Event()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.reset()
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
        """Empty the cache and the counters; call when no request is running."""
        for seq in (*self.waiting, *self.running):
            seq.aborted = True
            seq.progress.set()
        self.waiting.clear()
        self.running.clear()
        self.cache = BlockCache(self.kv_blocks)
        self.hits = self.queries = 0

    async def run(self) -> None:
        """Step for ever; sleeps while there is nothing to do."""
        while True:
            if not self.waiting and not self.running:
                self._wake.clear()
                await self._wake.wait()
            await self._step()

    async def _step(self) -> None:
        for seq in [s for s in self.running if s.aborted]:
            self._finish(seq)
        while self.waiting:
            seq = self.waiting[0]
            if not seq.aborted:
                if not self.cache.admit(seq):
                    break
                self.hits += seq.cached
                self.queries += seq.prompt_tokens
                self.running.append(seq)
            self.waiting.popleft()
        decoding = [s for s in self.running if s.computed >= s.prompt_tokens]
        budget = TOKEN_BUDGET - len(decoding)
        chunks: list[tuple[Sequence, int]] = []
        for seq in self.running:
            take = min(seq.prompt_tokens - seq.computed, budget)
            if take > 0:
                chunks.append((seq, take))
                budget -= take
        prefill = sum(take for _, take in chunks)
        context = sum(s.computed + s.generated for s in self.running)
        milliseconds = 5 + 0.06 * prefill + 0.3 * len(decoding) + 4e-5 * context
        await asyncio.sleep(milliseconds / 1000 / self.time_scale)
        for seq, take in chunks:
            seq.computed += take
        for seq in decoding + [s for s, _ in chunks if s.computed >= s.prompt_tokens]:
            if seq.aborted:
                continue
            seq.generated += 1
            if seq.done:
                self._finish(seq)
            if seq.done or seq.generated % STREAM_EVERY == 1:
                seq.progress.set()

    def _finish(self, seq: Sequence) -> None:
        if seq not in self.running:
            return
        self.running.remove(seq)
        if seq.done:
            keep = block_hashes(seq.text + answer(seq.text, seq.generated))
        else:
            keep = seq.blocks[: seq.computed // BLOCK_TOKENS]
        self.cache.release(seq, keep)

    async def _complete(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            text = render(body)
            limit = body.get("max_completion_tokens") or body.get("max_tokens") or 16
            max_tokens = max(1, int(limit))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return JSONResponse({"error": {"message": f"bad request: {error!r}"}}, 400)
        tokens = max(1, -(-len(text) // TOKEN_CHARS))
        if tokens + max_tokens > (self.kv_blocks - 1) * BLOCK_TOKENS:
            return JSONResponse({"error": {"message": "request exceeds the KV cache"}}, 400)
        seq = Sequence(text, tokens, max_tokens, block_hashes(text))
        self.waiting.append(seq)
        self._wake.set()
        chat = request.url.path.endswith("/chat/completions")
        if body.get("stream"):
            return StreamingResponse(self._stream(seq, chat), media_type="text/event-stream")
        try:
            while not seq.done and not seq.aborted:
                await seq.progress.wait()
                seq.progress.clear()
        finally:
            seq.aborted = not seq.done
        if seq.aborted:
            return JSONResponse({"error": {"message": "aborted"}}, 500)
        content = answer(text, seq.generated)
        part = {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
        return JSONResponse(self._envelope(seq, chat, part, "length"))

    def _envelope(
        self, seq: Sequence, chat: bool, part: dict[str, Any], finish: str | None
    ) -> dict[str, Any]:
        out: dict[str, Any] = {
            "id": f"cmpl-{id(seq):x}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [{"index": 0, **part, "finish_reason": finish}],
        }
        if finish:
            out["usage"] = {
                "prompt_tokens": seq.prompt_tokens,
                "completion_tokens": seq.generated,
                "total_tokens": seq.prompt_tokens + seq.generated,
                "prompt_tokens_details": {"cached_tokens": seq.cached},
            }
        return out

    async def _stream(self, seq: Sequence, chat: bool) -> AsyncIterator[str]:
        text, sent = answer(seq.text, seq.max_tokens), 0
        try:
            while sent < seq.max_tokens:
                await seq.progress.wait()
                seq.progress.clear()
                if seq.aborted:
                    raise RuntimeError("aborted")
                piece = text[sent * TOKEN_CHARS : seq.generated * TOKEN_CHARS]
                sent = seq.generated
                part = {"delta": {"content": piece}} if chat else {"text": piece}
                chunk = self._envelope(seq, chat, part, "length" if seq.done else None)
                chunk["object"] = "chat.completion.chunk" if chat else "text_completion"
                yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            seq.aborted = not seq.done

    async def _models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "routecore"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _health(self, request: Request) -> Response:
        return Response()

    async def _metrics(self, request: Request) -> Response:
        label = f'model_name="{self.model}"'
        config = f'block_size="{BLOCK_TOKENS}",num_gpu_blocks="{self.kv_blocks}"'
        rows = (
            ("num_requests_running", "gauge", "", label, len(self.running)),
            ("num_requests_waiting", "gauge", "", label, len(self.waiting)),
            ("kv_cache_usage_perc", "gauge", "", label, self.cache.used / self.kv_blocks),
            ("prefix_cache_hits", "counter", "_total", label, self.hits),
            ("prefix_cache_queries", "counter", "_total", label, self.queries),
            ("cache_config_info", "gauge", "", f"{label},{config}", 1),
        )
        lines = []
        for name, kind, suffix, labels, value in rows:
            lines.append(f"# HELP vllm:{name}{suffix} Simulated.")
            lines.append(f"# TYPE vllm:{name}{suffix} {kind}")
            lines.append(f"vllm:{name}{suffix}{{{labels}}} {float(value)}")
        text = "\n".join(lines) + "\n"
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
