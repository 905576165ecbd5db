"""Qwen-Bailian's JSONL: chats as chains of parents, blocks of 16 tokens, times in seconds."""

from pathlib import Path

import msgspec

from routecore.replay.columns import Trace
from routecore.replay.lines import field_first, read_rows

BLOCK = 16


class _Row(msgspec.Struct):
    chat_id: int
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]
    parent_chat_id: int = -1


def read(path: Path, *, skip_bad: bool = False) -> Trace:
    """Read a Qwen-Bailian trace.

    A turn whose parent is in the file arrives after the parent's end, by the difference of their
    timestamps; one whose parent is not, at its own timestamp.

    Raises:
        RouteError: A bad line, with its number, field and reason.
    """
    trace = Trace(BLOCK, path.name)
    decode = msgspec.json.Decoder(_Row).decode
    chats: dict[int, tuple[int, int, float]] = {}

    def add(line: bytes) -> None:
        try:
            row = decode(line)
        except msgspec.DecodeError as error:
            raise field_first(error) from None
        if row.input_length > len(row.hash_ids) * BLOCK:
            raise ValueError(
                f"input_length: {row.input_length} is more than {len(row.hash_ids)} hash_ids "
                f"of {BLOCK} tokens"
            )
        parent = chats.get(row.parent_chat_id)
        root = parent[1] if parent else row.chat_id
        number = trace.add(
            row.timestamp * 1e3,
            row.input_length,
            row.output_length,
            row.hash_ids[: -(-row.input_length // BLOCK)],
            session=root,
            after=[parent[0]] if parent else [],
            delay_ms=max(0.0, row.timestamp - parent[2]) * 1e3 if parent else 0.0,
        )
        chats[row.chat_id] = (number, root, row.timestamp)

    return read_rows(path, trace, add, skip_bad=skip_bad)
