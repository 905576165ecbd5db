"""Mooncake's JSONL: one request a line, prefix-chained block ids; with Dynamo's session fields."""

from pathlib import Path

import msgspec

from routecore.replay.columns import Trace
from routecore.replay.lines import field_first, read_rows


class _Row(msgspec.Struct):
    timestamp: float | None = None
    created_time: float | None = None
    input_length: int | None = None
    input_tokens: int | None = None
    output_length: int | None = None
    output_tokens: int | None = None
    hash_ids: list[int] = []
    session_id: str | int | None = None
    delay: float | None = None
    delay_ms: float | None = None
    request_id: str | int | None = None
    wait_for: list[str | int] = []
    tool_wait_ms: float = 0.0


def read(path: Path, block: int = 512, *, skip_bad: bool = False) -> Trace:
    """Read a Mooncake trace.

    Rows of one `session_id` are turns: each arrives `delay` (or the difference of timestamps)
    after the end of the one before. A row with `wait_for` arrives after all those requests.

    Args:
        path: JSONL, may be .gz.
        block: Tokens a hash id stands for.
        skip_bad: Count bad lines instead of failing.

    Raises:
        RouteError: A bad line, with its number, field and reason.
    """
    trace = Trace(block, path.name)
    decode = msgspec.json.Decoder(_Row).decode
    last: dict[str | int, tuple[int, float | None]] = {}
    named: dict[str | int, int] = {}

    def add(line: bytes) -> None:
        try:
            row = decode(line)
        except msgspec.DecodeError as error:
            raise field_first(error) from None
        time = row.created_time if row.timestamp is None else row.timestamp
        length = row.input_tokens if row.input_length is None else row.input_length
        output = row.output_tokens if row.output_length is None else row.output_length
        if output is None:
            raise ValueError("output_length: missing")
        ids = row.hash_ids
        if length is None:
            if not ids:
                raise ValueError("input_length: missing")
            length = len(ids) * block
        if ids and length > len(ids) * block:
            most = len(ids) * block
            raise ValueError(
                f"input_length: {length} is more than {len(ids)} hash_ids of {block} tokens "
                f"({most}); is the block size another one?"
            )
        if row.wait_for:
            unknown = [name for name in row.wait_for if name not in named]
            if unknown:
                raise ValueError(f"wait_for: no earlier request is called {unknown[0]!r}")
        delay = row.delay_ms if row.delay is None else row.delay
        before = None if row.session_id is None else last.get(row.session_id)
        after = [named[name] for name in row.wait_for]
        if before and not after:
            after = [before[0]]
            if delay is None:
                known = time is not None and before[1] is not None
                delay = max(0.0, time - before[1]) if known else 0.0  # type: ignore[operator]
        elif not after:
            if delay:
                raise ValueError("delay: a first turn waits for nothing; give it a timestamp")
            if time is None:
                raise ValueError("timestamp: missing")
        number = trace.add(
            time or 0.0,
            length,
            output,
            ids[: -(-length // block)],
            session=row.session_id,
            after=after,
            delay_ms=(delay or 0.0) + row.tool_wait_ms,
        )
        if row.session_id is not None:
            last[row.session_id] = (number, time)
        if row.request_id is not None:
            named[row.request_id] = number

    return read_rows(path, trace, add, skip_bad=skip_bad)
