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
from routecore.requests.body import PROMPTS
from routecore.requests.usage import Usage, usage_in

BLOCK = 16
"""Tokens of a block; 4 bytes of text are taken for a token."""
_TIMES = ("timestamp", "time", "created", "created_at", "start_time", "ts")
_OUTPUTS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")
# What benchmark tools call an answer's length.
_LENGTHS = ("output_length", "output_len")


class _Row(msgspec.Struct):
    timestamp: float | str
    body: Any = None
    request: Any = None
    usage: dict[str, Any] | None = None
    response: Any = None
    session_id: str | int | None = None
    latency_ms: float = 0.0


def _decode(line: bytes) -> tuple[_Row, Any]:
    """The row and its body, which may be JSON text, or the row itself."""
    try:
        plain = msgspec.json.decode(line)
    except msgspec.DecodeError:
        plain = json.loads(line)  # takes the lone surrogates that msgspec refuses
    if isinstance(plain, dict) and "timestamp" not in plain:
        time = next((plain[name] for name in _TIMES if name in plain), None)
        if time is None:
            raise ValueError(
                f"timestamp: missing; expected seconds, milliseconds or an ISO 8601 time under one "
                f"of {', '.join(_TIMES)}"
            )
        plain = {**plain, "timestamp": time}
    try:
        row = msgspec.convert(plain, _Row)
    except msgspec.ValidationError as error:
        raise field_first(error) from None
    body = row.request if row.body is None else row.body
    if body is None and any(name in plain for name in PROMPTS):
        body = plain
    if row.usage is None and row.response is None:
        row.usage = {k: v for k, v in plain.items() if isinstance(v, int) and k.endswith("_tokens")}
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


def _usage(row: _Row) -> Usage | None:
    response = row.response if isinstance(row.response, dict) else {}
    for counts in (row.usage, response.get("usage"), response.get("meta_info"), response):
        found = usage_in(counts)
        if found is not None:
            return found
    return None


def _output(usage: Usage | None, body: dict[str, Any]) -> int:
    if usage and usage.completion_tokens is not None:
        return usage.completion_tokens
    nested = (body.get(name) for name in ("sampling_params", "parameters", "options"))
    for source in (body, *(n for n in nested if isinstance(n, dict))):
        for name in (*_LENGTHS, *_OUTPUTS, "num_predict"):
            value = source.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    raise ValueError("usage: expected completion_tokens, or max_tokens in the body")


def _session(row: _Row, body: dict[str, Any], chains: dict[str, str | int]) -> str | int | None:
    """The row's session: as named, or that of the response which it continues."""
    response = row.response if isinstance(row.response, dict) else {}
    own, before = response.get("id"), body.get("previous_response_id")
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    session: Any = row.session_id
    if session is None and isinstance(conversation, str):
        session = conversation
    if session is None and isinstance(before, str):
        session = chains.get(before, before)
    if isinstance(own, str) and "input" in body:
        session = own if session is None else session
        chains[own] = session
    return session if isinstance(session, str | int) else None


def read(path: Path, *, skip_bad: bool = False) -> Trace:
    """Read a log: JSONL of `timestamp`, `body` (or `request`), and best `usage`.

    Bodies may be of any API that routers read. `timestamp` is seconds or ISO 8601. `usage` (or
    `response.usage`), under the names of any API, gives the token counts; where it is missing, 4
    bytes are a token, images count by what they weigh, and `max_tokens` is the output. Rows of
    one `session_id`, or of one chain of `previous_response_id`, are turns: each arrives after the
    end of the one before, by the difference of their timestamps less its `latency_ms`.

    Raises:
        RouteError: A bad line, with its number, field and reason.
    """
    trace = Trace(BLOCK, path.name)
    last: dict[str | int, tuple[int, float]] = {}
    chains: dict[str, str | int] = {}

    def add(line: bytes) -> None:
        try:
            row, body = _decode(line)
        except RecursionError:
            raise ValueError("body: nested too deeply") from None
        found = _core.prompt_blocks(body, BLOCK)
        if found is None:
            raise ValueError("body: no prompt of a known API in it, such as messages or input")
        ids = array("Q")
        ids.frombytes(found[0])
        usage = _usage(row)
        reported = usage.prompt_tokens if usage else None
        tokens = max(1, reported or found[1])
        session = _session(row, body, chains)
        time = _time_ms(row.timestamp)
        before = None if session is None else last.get(session)
        number = trace.add(
            time,
            tokens,
            _output(usage, body),
            # Full blocks alone: what is behind them belongs to the request.
            ids[: tokens // BLOCK],
            session=session,
            after=[before[0]] if before else [],
            delay_ms=max(0.0, time - before[1]) if before else 0.0,
        )
        if session is not None:
            last[session] = (number, time + row.latency_ms)

    return read_rows(path, trace, add, skip_bad=skip_bad)
