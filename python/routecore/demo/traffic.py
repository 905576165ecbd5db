"""What is sent: generated conversations, a trace, or a user's own requests."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TRACE_SCALE = 4  # a 512-token block becomes 128 tokens, so that a run fits a laptop
_TRACE_BLOCK = 512
_CHARS = 4  # per token


@dataclass
class Job:
    """One conversation: bodies sent one after the other, each after the previous answer."""

    start: float  # simulated seconds
    bodies: list[dict[str, Any]]
    session: str | None = None
    delay: float = 0.5  # simulated seconds between an answer and the next turn
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"x-session-id": self.session} if self.session else {}


def text(seed: str, tokens: int) -> str:
    """The same text for the same seed, of so many tokens."""
    return hashlib.shake_128(seed.encode()).hexdigest(tokens * _CHARS // 2)


def conversations(*, rate: float, seconds: float, seed: int, turns: float = 4.0) -> list[Job]:
    """Multi-turn chats over a few shared system prompts of Zipf popularity.

    Args:
        rate: Requests per simulated second, on average.
        seconds: Simulated seconds of arrivals.
        seed: Of everything drawn.
        turns: Mean turns of a conversation.
    """
    draw = np.random.default_rng(seed)
    jobs: list[Job] = []
    start = 0.0
    while (start := start + float(draw.exponential(turns / rate))) < seconds:
        system = text(f"{seed} system {min(int(draw.zipf(1.4)), 40)}", 640)
        messages = [{"role": "system", "content": system}]
        bodies = []
        for turn in range(int(draw.geometric(1 / turns))):
            words = int(draw.integers(100, 600))
            question = text(f"{seed} {len(jobs)} {turn}", words)
            messages = [*messages, {"role": "user", "content": question}]
            bodies.append(_chat(messages, int(draw.integers(16, 64))))
            answer = text(f"{seed} answer {len(jobs)} {turn}", 48)
            messages = [*messages, {"role": "assistant", "content": answer}]
        jobs.append(Job(start, bodies, session=f"s{seed}-{len(jobs)}"))
    return jobs


def trace(path: Path, *, rate: float, seconds: float, seed: int) -> list[Job]:
    """The first requests of a Mooncake trace, prompts expanded from its block hashes.

    Lengths are divided by `TRACE_SCALE`. Order is the trace's, arrivals are Poisson at `rate`.

    Raises:
        ValueError: Naming file, line, field and reason.
    """
    arrivals = _arrivals(rate, seconds, seed)
    jobs = []
    for number, row in _rows(path):
        start = next(arrivals, None)
        if start is None:
            break
        for name in ("input_length", "output_length"):
            if type(row.get(name)) is not int or row[name] < 1:
                raise _bad(path, number, name, f"expected an integer above 0, got {row.get(name)}")
        ids = row.get("hash_ids")
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise _bad(path, number, "hash_ids", "expected a list of integers")
        if row["input_length"] > len(ids) * _TRACE_BLOCK:
            raise _bad(path, number, "input_length", f"exceeds {len(ids)} blocks of {_TRACE_BLOCK}")
        prompt = "".join(text(f"block {i}", _TRACE_BLOCK // TRACE_SCALE) for i in ids)
        prompt = prompt[: max(1, row["input_length"] // TRACE_SCALE) * _CHARS]
        output = max(1, row["output_length"] // TRACE_SCALE)
        jobs.append(Job(start, [_chat([{"role": "user", "content": prompt}], output)]))
    return _some(path, jobs)


def requests(path: Path, *, rate: float, seconds: float, seed: int) -> list[Job]:
    """A user's OpenAI bodies, one per line, each sent once at Poisson arrivals.

    Raises:
        ValueError: Naming file, line, field and reason.
    """
    arrivals = _arrivals(rate, seconds, seed)
    jobs = []
    for number, body in _rows(path):
        messages = body.get("messages")
        if messages is None and "prompt" not in body:
            raise _bad(path, number, "messages", "missing, and there is no prompt either")
        if messages is not None and not (
            isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
        ):
            raise _bad(path, number, "messages", "expected a list of objects")
        limit = body.get("max_tokens")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise _bad(path, number, "max_tokens", f"expected an integer above 0, got {limit!r}")
        start = next(arrivals, None)
        if start is not None:  # lines past the end of the run are still checked
            jobs.append(Job(start, [{**body, "stream": True}]))
    return _some(path, jobs)


def _chat(messages: list[dict[str, str]], tokens: int) -> dict[str, Any]:
    return {"model": "demo", "messages": messages, "max_tokens": tokens, "stream": True}


def _arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    draw, now = np.random.default_rng(seed), 0.0
    while (now := now + float(draw.exponential(1 / rate))) < seconds:
        yield now


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise _bad(path, number, "line", f"no JSON: {error}") from None
                if not isinstance(row, dict):
                    raise _bad(path, number, "line", "expected an object")
                yield number, row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise _bad(path, number + 1, "file", str(error)) from None


def _some(path: Path, jobs: list[Job]) -> list[Job]:
    if not jobs:
        raise _bad(path, 1, "file", "holds no requests for the time of the run")
    return jobs


def _bad(path: Path, line: int, name: str, reason: str) -> ValueError:
    return ValueError(f"{path}:{line}: {name}: {reason}")
