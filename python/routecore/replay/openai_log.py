"""A log of OpenAI-style requests: your own traffic, hashed by the reader that live routers use."""

import json
from array import array
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from routecore import _core
from routecore.replay.columns import Trace
from routecore.replay.lines import field_first, read_rows

BLOCK = 16
"""Tokens of a block; 4 bytes of text are taken for a token."""
_BODIES = ("messages", "prompt", "input")


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Response(msgspec.Struct):
    usage: _Usage | None = None


class _Row(msgspec.Struct):
    timestamp: float | str
    body: Any = None
    request: Any = None
    usage: _Usage | None = None
    response: _Response | None = None
    session_id: str | int | None = None
    latency_ms: float = 0.0


def _decode(line: bytes) -> tuple[_Row, Any]:
    """The row and its body, which may be JSON text, or the row itself."""
    try:
        plain = msgspec.json.decode(line)
    except msgspec.DecodeError:
        plain = json.loads(line)  # takes the lone surrogates that msgspec refuses
    try:
        row = msgspec.convert(plain, _Row)
    except msgspec.ValidationError as error:
        raise field_first(error) from None
    body = row.request if row.body is None else row.body
    if body is None and any(name in plain for name in _BODIES):
        body = plain
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise ValueError(f"body: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("body: expected a request body with messages, prompt or input")
    return row, body


def _time_ms(timestamp: float | str) -> float:
    if isinstance(timestamp, str):
        try:
            return datetime.fromisoformat(timestamp).timestamp() * 1e3
        except ValueError:
            raise ValueError(
                f"timestamp: expected seconds or an ISO 8601 time, got {timestamp!r}"
            ) from None
    # Seconds since 1970 stay below 1e11 for 3,000 years; what is above is milliseconds.
    return timestamp if timestamp > 1e11 else timestamp * 1e3


def _output(row: _Row, body: dict[str, Any]) -> int:
    usage = row.usage or (row.response and row.response.usage)
    if usage and usage.completion_tokens is not None:
        return usage.completion_tokens
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return int(body[name])
    raise ValueError("usage: expected completion_tokens, or max_tokens in the body")


def read(path: Path, *, skip_bad: bool = False) -> Trace:
    """Read a log: JSONL of `timestamp`, `body` (or `request`), and best `usage`.

    `timestamp` is seconds or ISO 8601. `usage` (or `response.usage`) gives the token counts; where
    it is missing, 4 bytes are a token and `max_tokens` is the output. Rows of one `session_id`
    are turns: each arrives after the end of the one before, by the difference of their timestamps
    less its `latency_ms`.

    Raises:
        RouteError: A bad line, with its number, field and reason.
    """
    trace = Trace(BLOCK, path.name)
    last: dict[str | int, tuple[int, float]] = {}

    def add(line: bytes) -> None:
        try:
            row, body = _decode(line)
        except RecursionError:
            raise ValueError("body: nested too deeply") from None
        found = _core.prompt_blocks(body, BLOCK)
        if found is None:
            raise ValueError("body: expected messages, prompt or input")
        ids = array("Q")
        ids.frombytes(found[0])
        usage = row.usage or (row.response and row.response.usage)
        told = usage.prompt_tokens if usage else None
        tokens = max(1, found[1]) if told is None else told
        time = _time_ms(row.timestamp)
        before = None if row.session_id is None else last.get(row.session_id)
        number = trace.add(
            time,
            tokens,
            _output(row, body),
            # Full blocks alone: what is behind them belongs to the request.
            ids[: max(0, tokens) // BLOCK],
            session=row.session_id,
            after=[before[0]] if before else [],
            delay_ms=max(0.0, time - before[1]) if before else 0.0,
        )
        if row.session_id is not None:
            last[row.session_id] = (number, time + row.latency_ms)

    return read_rows(path, trace, add, skip_bad=skip_bad)
