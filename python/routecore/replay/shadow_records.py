"""The records of shadow mode as a trace: a host's own traffic, without its text."""

from pathlib import Path

import msgspec

from routecore.replay.columns import Trace
from routecore.replay.lines import field_first, read_rows

BLOCK = 128
"""Tokens of a block of these records."""
_OUTPUT = 256  # tokens of an answer, where no engine has reported one yet


class _Row(msgspec.Struct):
    time: float
    prompt_tokens: float = 0
    hash_ids: list[int] = []
    output_tokens: int | None = None
    max_tokens: int | None = None


def read(path: Path, *, skip_bad: bool = False) -> Trace:
    """Read the records that a host in shadow mode has written.

    An answer whose tokens no engine counted is as long as the mean of those before it, and no
    longer than it was allowed to be.

    Raises:
        RouteError: A bad line, with its number, field and reason.
    """
    trace = Trace(BLOCK, path.name)
    decode = msgspec.json.Decoder(_Row).decode
    total = count = 0

    def add(line: bytes) -> None:
        nonlocal total, count
        try:
            row = decode(line)
        except msgspec.DecodeError as error:
            raise field_first(error) from None
        output = row.output_tokens
        if output is None:
            output = round(total / count) if count else _OUTPUT
            output = output if row.max_tokens is None else min(output, row.max_tokens)
        else:
            total, count = total + output, count + 1
        tokens = max(1, round(row.prompt_tokens))
        trace.add(1e3 * row.time, tokens, max(1, output), row.hash_ids[: tokens // BLOCK])

    return read_rows(path, trace, add, skip_bad=skip_bad)
