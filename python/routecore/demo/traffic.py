"""Traffic: generated chats, a Mooncake trace, or recorded requests."""

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from routecore.demo.engine import TOKEN_CHARS, answer, render

SCALE = 8
TRACE_BLOCK_CHARS = 512 // SCALE * TOKEN_CHARS
WORDS = "route cache block token model batch prefix engine load queue step fleet score".split()


class Arrival(NamedTuple):
    """A request and when it comes, in seconds from the start."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class TrafficError(ValueError):
    """A file that cannot be used as traffic; the message has file, line, field and reason."""


class TraceLine(msgspec.Struct):
    """A line of a Mooncake trace."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


def words(key: str, chars: int) -> str:
    """Text of a length, the same for the same key."""
    rng = random.Random(key)
    text = f"{key}: " + " ".join(rng.choice(WORDS) for _ in range(chars // 4))
    return text[:chars].ljust(chars, ".")


def poisson(rate: float, seconds: float, rng: np.random.Generator) -> Iterator[float]:
    """Arrival times of a Poisson process."""
    at = float(rng.exponential(1 / rate))
    while at < seconds:
        yield at
        at += float(rng.exponential(1 / rate))


def chats(rate: float, seconds: float, seed: int, *, prompts: int = 12) -> list[Arrival]:
    """Multi-turn chats whose system prompts are shared, a few by most sessions."""
    rng = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    resting: list[tuple[float, str, list[dict[str, str]]]] = []
    ids = itertools.count()
    for at in poisson(rate, seconds, rng):
        ready = [i for i, (until, _, _) in enumerate(resting) if until <= at]
        if ready and rng.random() < 0.7:
            _, name, messages = resting.pop(ready[int(rng.integers(len(ready)))])
        else:
            name = f"session-{seed}-{next(ids)}"
            which = (int(rng.zipf(1.4)) - 1) % prompts
            system = words(f"system {which}", 2400 + 400 * (which % 5))
            messages = [{"role": "system", "content": system}]
        question = words(f"{name} turn {len(messages)}", int(rng.integers(120, 900)))
        messages = [*messages, {"role": "user", "content": question}]
        tokens = int(rng.integers(8, 48))
        body = {"model": "demo", "messages": messages, "max_tokens": tokens, "stream": True}
        arrivals.append(Arrival(at, "/v1/chat/completions", {"x-session-id": name}, body))
        if len(messages) < 12:
            reply = {"role": "assistant", "content": answer(render(body), tokens)}
            resting.append((at + 1.0, name, [*messages, reply]))
    return arrivals


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise TrafficError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _trace_line(where: str, line: bytes) -> TraceLine:
    try:
        row = msgspec.json.decode(line, type=TraceLine)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason, _, field = str(error).partition(" - at `$.")
        raise TrafficError(f"{where}: {field.rstrip('`') or 'line'}: {reason}") from None
    for name, least in (("timestamp", 0), ("input_length", 1), ("output_length", 1)):
        value = getattr(row, name)
        if value < least:
            raise TrafficError(f"{where}: {name}: expected at least {least}, got {value}")
    if len(row.hash_ids) * 512 < row.input_length:
        need = -(-row.input_length // 512)
        got = len(row.hash_ids)
        raise TrafficError(f"{where}: hash_ids: expected {need} for the input_length, got {got}")
    return row


def trace(path: Path, rate: float, seconds: float) -> list[Arrival]:
    """A Mooncake trace at an eighth of its lengths, its arrivals stretched to the mean rate."""
    rows: list[TraceLine] = []
    limit = int(rate * seconds) + 1
    for number, line in _lines(path):
        rows.append(_trace_line(f"{path}:{number}", line))
        if len(rows) >= limit:
            break
    if not rows:
        raise TrafficError(f"{path}: no requests")
    rows.sort(key=lambda row: row.timestamp)
    start = rows[0].timestamp
    stretch = len(rows) / rate / max(rows[-1].timestamp - start, 1.0)
    arrivals: list[Arrival] = []
    for row in rows:
        at = (row.timestamp - start) * stretch
        text = "".join(words(f"block {i}", TRACE_BLOCK_CHARS) for i in row.hash_ids)
        prompt = text[: max(1, row.input_length // SCALE) * TOKEN_CHARS]
        tokens = max(1, row.output_length // SCALE)
        body = {"model": "demo", "prompt": prompt, "max_tokens": tokens, "stream": True}
        arrivals.append(Arrival(at, "/v1/completions", {}, body))
    return arrivals


def requests(path: Path, rate: float, seconds: float, seed: int) -> list[Arrival]:
    """OpenAI bodies, one a line, sent in order and again from the start."""
    bodies: list[dict[str, Any]] = []
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TrafficError(f"{where}: line: not JSON ({error})") from None
        if not isinstance(body, dict) or not ("messages" in body or "prompt" in body):
            raise TrafficError(f"{where}: messages: expected an object with messages or prompt")
        messages = body.get("messages", [])
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise TrafficError(f"{where}: messages: expected a list of objects")
        bodies.append({**body, "stream": True})
    if not bodies:
        raise TrafficError(f"{path}: no requests")
    times = poisson(rate, seconds, np.random.default_rng(seed))
    return [
        Arrival(at, "/v1/chat/completions" if "messages" in body else "/v1/completions", {}, body)
        for at, body in zip(times, itertools.cycle(bodies), strict=False)
    ]
