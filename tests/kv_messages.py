"""Event messages as vLLM's structs encode them: maps since 2026-06, arrays before."""

from typing import Any

import msgspec

FIELDS = {
    "BlockStored": (
        "block_hashes",
        "parent_block_hash",
        "token_ids",
        "block_size",
        "lora_id",
        "medium",
        "lora_name",
        "extra_keys",
        "group_idx",
        "kv_cache_spec_kind",
        "kv_cache_spec_sliding_window",
    ),
    "BlockRemoved": ("block_hashes", "medium", "group_idx", "locality"),
    "AllBlocksCleared": (),
}
MINIMUM = {"BlockStored": 4, "BlockRemoved": 1, "AllBlocksCleared": 0}


def stored(hashes: list[Any], parent: Any, tokens: list[int], block: int = 4, **more: Any) -> Any:
    """A `BlockStored` event; absent fields are those the engine leaves out."""
    named = {"block_hashes": hashes, "parent_block_hash": parent, "token_ids": tokens}
    return {"type": "BlockStored", **named, "block_size": block, **more}


def removed(hashes: list[Any], **more: Any) -> Any:
    """A `BlockRemoved` event."""
    return {"type": "BlockRemoved", "block_hashes": hashes, **more}


def cleared() -> Any:
    """An `AllBlocksCleared` event."""
    return {"type": "AllBlocksCleared"}


def positional(event: Any) -> list[Any]:
    """The older encoding: tag first, defaults in the middle as null, absent ones at the end cut."""
    names = FIELDS[event["type"]]
    values = [event.get(name) for name in names]
    while len(values) > MINIMUM[event["type"]] and values[-1] is None:
        values.pop()
    return [event["type"], *values]


def message(
    *events: Any,
    old: bool = False,
    outer_map: bool = False,
    rank: int | None = 0,
    time: float = 1.5,
) -> bytes:
    """A whole payload."""
    body = [positional(e) if old and isinstance(e, dict) else e for e in events]
    if outer_map:
        return msgspec.msgpack.encode({"ts": time, "events": body, "data_parallel_rank": rank})
    return msgspec.msgpack.encode([time, body, rank])
