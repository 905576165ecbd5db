"""The naive twin of the prefix index and of all that the cache-aware strategies read.

Everything is looked up by URL in plain lists and dicts, and counted anew at every question.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import reference

# Of what must not share a cache, and the bytes from the start of the prompt to a block's end.
Prefix = tuple[Any, bytes]
PENDING_LEASE = 1.0


@dataclass
class Prompt:
    """A prompt cut into blocks."""

    chain: list[Prefix]
    size: int
    block: int
    text: bool
    sequences: int = 1


def rendered(value: Any) -> Iterator[bytes]:
    """Texts end in a separator, token ids are four bytes, dicts and lists are read in order."""
    if isinstance(value, str):
        yield reference.utf8(value) + b"\x1f"
    elif isinstance(value, int):
        yield (value & 0xFFFFFFFF).to_bytes(4, "little")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from rendered(name)
            yield from rendered(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from rendered(item)


def prompt_of(body: Any, block_chars: int, block_tokens: int) -> Prompt | None:
    """The full blocks of a body's prompt; None for a body without one."""
    if not isinstance(body, dict):
        return None
    asked = next(
        (body[name] for name in ("messages", "prompt", "input") if body.get(name) is not None),
        None,
    )
    if asked is None:
        return None
    ids = isinstance(asked, list) and bool(asked) and isinstance(asked[0], int)
    block, unit = (block_tokens, 4) if ids else (block_chars, 1)
    turns = [("system", body["system"])] if "system" in body else []
    if "messages" in body:
        turns += [(message["role"], message["content"]) for message in asked]
    elif "input" in body:
        turns += [("user", text) for text in asked]
    data = b"".join(rendered(body.get("tools")))
    data += b"".join(b"".join(rendered({"role": role, "content": c})) for role, c in turns)
    if "prompt" in body:
        data += b"".join(rendered(asked))
    apart = (*(body.get(name) for name in ("model", "lora_name", "cache_salt")), ids)
    step = block * unit
    chain = [(apart, data[:end]) for end in range(step, len(data) + 1, step)]
    batch = isinstance(asked, list) and bool(asked) and isinstance(asked[0], str)
    return Prompt(chain, len(data) // unit, block, not ids, len(asked) if batch else 1)


@dataclass
class Block:
    """A block that an endpoint holds."""

    users: int = 0
    confirmed: bool = False
    released: int = 0


class NaiveIndex:
    """One dict of prefixes per endpoint; the block let go longest ago leaves first."""

    def __init__(self) -> None:
        self.held: dict[str, dict[Prefix, Block]] = {}
        self.capacity: dict[str, int] = {}
        self.clock = 0

    def blocks(self, url: str) -> dict[Prefix, Block]:
        """What the endpoint holds."""
        return self.held.setdefault(url, {})

    def depth(self, url: str, chain: list[Prefix]) -> int:
        """Leading blocks that it holds."""
        blocks = self.blocks(url)
        return next((n for n, prefix in enumerate(chain) if prefix not in blocks), len(chain))

    def in_use(self, url: str, chain: list[Prefix]) -> int:
        """Leading blocks that its requests in flight use."""
        blocks = self.blocks(url)
        idle = (n for n, p in enumerate(chain) if p not in blocks or not blocks[p].users)
        return next(idle, len(chain))

    def pinned(self, url: str) -> int:
        """Distinct blocks that its requests in flight use."""
        return sum(block.users > 0 for block in self.blocks(url).values())

    def pin(self, url: str, chain: list[Prefix]) -> list[Prefix]:
        """Puts the head of the chain there, as much as has room; what is pinned."""
        known = self.depth(url, chain)
        for prefix in chain[:known]:
            self.blocks(url)[prefix].users += 1
        room = max(0, self.capacity.get(url, 0) - self.pinned(url))
        for prefix in chain[known : known + room]:
            self.blocks(url)[prefix] = Block(users=1)
        return chain[: known + room]

    def confirm(self, url: str, pinned: list[Prefix]) -> None:
        """They stay after the request."""
        for prefix in pinned:
            self.blocks(url)[prefix].confirmed = True
        self.make_room(url)

    def release(self, url: str, pinned: list[Prefix]) -> None:
        """The request is over; tails leave before heads."""
        blocks = self.blocks(url)
        for prefix in reversed(pinned):
            self.clock += 1
            block = blocks[prefix]
            block.users -= 1
            block.released = self.clock
            if not block.users and not block.confirmed:
                del blocks[prefix]
        self.make_room(url)

    def make_room(self, url: str) -> None:
        """Lets idle blocks go until those fit that an engine is known to have computed."""
        blocks, capacity = self.blocks(url), self.capacity.get(url, 0)
        while sum(block.confirmed for block in blocks.values()) > capacity:
            idle = [prefix for prefix, block in blocks.items() if not block.users]
            if not idle:
                break
            del blocks[min(idle, key=lambda prefix: blocks[prefix].released)]


@dataclass(eq=False)
class Request:
    """A choice, and what became of it."""

    url: str
    time: float
    prompt_tokens: int = 0
    uncached: int = 0
    prefill_us: int = 0
    pinned: list[Prefix] = field(default_factory=list)
    text: bool = False
    id: str | None = None  # None: chosen, not reported
    started: bool = False


@dataclass
class Row:
    """What one endpoint looks like to a strategy, for one prompt."""

    cached: float
    in_use: float
    in_flight: int
    in_prefill: int
    in_decoding: int
    queued: int
    queued_pairs: int
    context: int
    kv: float
    reported: float | None
    caution: float


class NaiveFleet:
    """Requests in flight and prompts held, per URL."""

    def __init__(self, kv_tokens: float, lease: float) -> None:
        self.kv_default, self.lease, self.now = kv_tokens, lease, 0.0
        self.index = NaiveIndex()
        self.requests: list[Request] = []
        self.tokens_per_byte, self.block_tokens = 0.25, 0.0
        self.reported: dict[str, float] = {}
        self.believed: dict[str, float] = {}
        self.misses: dict[str, int] = {}
        self.tells: set[str] = set()
        self.kv: dict[str, float] = {}
        self.answers: dict[str, int] = {}
        self.predictions = [0, 0, 0, 0]

    def tokens(self, prompt: Prompt) -> tuple[float, float]:
        """Tokens of the prompt and of a block."""
        scale = self.tokens_per_byte if prompt.text else 1.0
        return prompt.size * scale, prompt.block * scale

    def row(self, url: str, prompt: Prompt | None) -> Row:
        """Everything there is to know of an endpoint for this prompt."""
        here = [r for r in self.requests if r.url == url]
        waiting = [r for r in here if not r.started]
        sent = [r for r in here if r.id is not None]
        cached = in_use = 0.0
        if prompt:
            tokens, block = self.tokens(prompt)
            most = max(0, math.floor((tokens - 1) / block))
            cached = min(self.index.depth(url, prompt.chain), most) * block
            in_use = self.index.in_use(url, prompt.chain) * block
        return Row(
            cached=cached,
            in_use=in_use,
            in_flight=len(here),
            in_prefill=sum(not r.started for r in sent),
            in_decoding=sum(r.started for r in sent),
            queued=sum(r.uncached for r in waiting),
            queued_pairs=sum(
                int(r.uncached * max(0, r.prompt_tokens - r.uncached / 2)) for r in waiting
            ),
            context=sum(r.prompt_tokens for r in here),
            kv=self.kv.get(url, 0.0),
            reported=self.reported.get(url),
            caution=1 + 1 / (1 + self.answers.get(url, 0) / 4),
        )

    def chosen(self, url: str, prompt: Prompt | None, prefill_ms: Any) -> Request:
        """The choice counts at once; `prefill_ms` of tokens and uncached tokens."""
        request = Request(url, self.now)
        if prompt:
            tokens, block = self.tokens(prompt)
            uncached = max(1.0, tokens - self.row(url, prompt).cached)
            reported = self.reported.get(url) or self.kv_default
            beyond = min(max(self.misses.get(url, 0) - 3, 0), 64)
            believed = self.believed.get(url, 1.0) * 0.125**beyond
            blocks = int(reported * believed / block)
            self.index.capacity[url] = -(-blocks // 16) * 16
            self.index.make_room(url)
            fits = tokens <= reported * prompt.sequences
            request.pinned = self.index.pin(url, prompt.chain) if fits else []
            request.prompt_tokens, request.uncached = int(tokens), int(uncached)
            request.prefill_us = int(1e3 * prefill_ms(tokens, uncached))
            request.text = prompt.text
            self.block_tokens = block
            self.kv[url] = self.index.pinned(url) * block
        self.requests.append(request)
        return request

    def sent(self, url: str, name: str, time: float) -> None:
        """The oldest unreported choice there was for it; an attempt elsewhere has failed."""
        self.advance(time)
        for old in [r for r in self.requests if r.id == name and r.url != url and not r.started]:
            self.over(old)
        chosen = (r for r in self.requests if r.url == url and r.id is None)
        request = next(chosen, None) or Request(url, time)
        if request in self.requests:
            self.requests.remove(request)
        request.id, request.time = name, time
        self.requests.append(request)

    def first_token(self, url: str, name: str, time: float) -> None:
        """The prefix is computed."""
        self.advance(time)
        named = self.named(url, name)
        request = next((r for r in named if not r.started), None)
        if request:
            request.started = True
            self.index.confirm(url, request.pinned)
            self.answers[url] = self.answers.get(url, 0) + 1

    def usage(self, url: str, name: str, prompt: int | None, cached: int | None) -> None:
        """What the engine counted."""
        request = next(iter(self.named(url, name)), None)
        if request is None:
            return
        if prompt and request.prompt_tokens >= 64 and request.text:
            ratio = min(max(prompt / request.prompt_tokens, 0.1), 10.0)
            moved = self.tokens_per_byte * (1.0 + 0.05 * (ratio - 1.0))
            self.tokens_per_byte = min(max(moved, 0.02), 2.0)
        if cached is None and prompt and url in self.tells:
            cached = 0
        if cached is None:
            return
        self.tells.add(url)
        cached = min(cached, prompt or cached)
        promised = max(0, request.prompt_tokens - request.uncached)
        over = promised > cached + max(1.0, self.block_tokens) + 1.0
        for at, more in enumerate((1, over, promised, cached)):
            self.predictions[at] += more
        believed = self.believed.get(url, 1.0)
        if cached:
            self.misses[url] = 0
        if promised:
            self.misses[url] = self.misses.get(url, 0) + (not cached)
            believed = min(max(believed * (0.97 if over else 1.002), 0.05), 1.0)
        self.believed[url] = believed

    def end(self, url: str, name: str, time: float, done: bool) -> None:
        """Served, or failed."""
        self.advance(time)
        named = self.named(url, name)
        request = next((r for r in named if r.started), next(iter(named), None))
        if request is None:
            return
        if done and not request.started:
            self.index.confirm(url, request.pinned)
        self.over(request)

    def advance(self, now: float) -> None:
        """Choices that nobody reports and requests that never end leave."""
        self.now = max(self.now, now)
        choices = [r for r in self.requests if r.id is None and r.time < self.now - PENDING_LEASE]
        leases = [r for r in self.requests if r.id is not None and r.time < self.now - self.lease]
        for request in choices + leases:
            self.over(request)

    def remove(self, url: str) -> None:
        """The endpoint is gone with all it had."""
        self.requests = [r for r in self.requests if r.url != url]
        for of_urls in (
            self.index.held,
            self.index.capacity,
            self.reported,
            self.believed,
            self.misses,
        ):
            of_urls.pop(url, None)
        self.tells.discard(url)
        self.kv.pop(url, None)
        self.answers.pop(url, None)

    def named(self, url: str, name: str) -> list[Request]:
        """The requests of that name there: a host may send one twice."""
        return [r for r in self.requests if (r.url, r.id) == (url, name)]

    def over(self, request: Request) -> None:
        """It is in flight no longer."""
        self.requests.remove(request)
        if request.pinned:
            self.index.release(request.url, request.pinned)
            self.kv[request.url] = self.index.pinned(request.url) * self.block_tokens


@dataclass
class Question:
    """One decision: the candidates, and what is asked of them."""

    rows: Mapping[str, Row]
    tokens: float
    block: float
    head: Prefix | None = None  # names the class of the prompt, for lmetric
    head_tokens: float = 0.0
    chain: Sequence[Prefix] = ()
    engine: Any = None  # learned: prefill, step, output tokens, rate, reuse, sequences
    # Learned of each: slowness in prefill and decode, prefill and requests sent lately.
    slower: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    kv_tokens: float = 400_000.0
    stats: Mapping[str, Any] = field(default_factory=dict)  # of the engines, for llm_d

    def uncached(self, url: str) -> float:
        """Tokens to prefill there."""
        return max(1.0, self.tokens - self.rows[url].cached)

    def added(self, url: str) -> float:
        """Tokens that its KV cache must keep beside those it keeps already."""
        return max(0.0, self.tokens - self.rows[url].in_use)


def question(fleet: NaiveFleet, urls: list[str], prompt: Prompt | None, **more: Any) -> Question:
    """What a strategy knows."""
    rows = {url: fleet.row(url, prompt) for url in urls}
    if prompt is None:
        return Question(rows, 0.0, 0.0, **more)
    tokens, block = fleet.tokens(prompt)
    blocks = min(max(1, math.ceil(512 / max(1.0, block))), len(prompt.chain))
    head = prompt.chain[blocks - 1] if blocks else None
    return Question(rows, tokens, block, head, blocks * block, prompt.chain, **more)
