"""What happens to the blocks of a simulated engine's cache, as vLLM's KV events."""

from typing import Any, Protocol

from routecore.demo.sequence import BLOCK_TOKENS, Sequence


class Publisher(Protocol):
    """Sends batches of events; `events.EventPublisher`."""

    def publish(self, events: list[dict[str, Any]]) -> None:
        """Send a batch; returns at once."""
        ...


class BlockLog:
    """Collects what happens to the blocks of a cache, and publishes it.

    Args:
        publisher: Where batches go.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._events: list[dict[str, Any]] = []
        self._last: tuple[Sequence, int] | None = None

    def stored(self, sequence: Sequence, index: int) -> None:
        """The cache took a block of a prompt that it did not have."""
        tokens = sequence.token_ids[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS].tolist()
        if self._last != (sequence, index - 1):
            self._events.append(
                {
                    "type": "BlockStored",
                    "block_hashes": [],
                    "parent_block_hash": sequence.keys[index - 1] if index else None,
                    "token_ids": [],
                    "block_size": BLOCK_TOKENS,
                    "medium": "GPU",
                    "extra_keys": None,
                    "group_idx": 0,
                    "kv_cache_spec_kind": "full_attention",
                }
            )
        self._events[-1]["block_hashes"].append(sequence.keys[index])
        self._events[-1]["token_ids"].extend(tokens)
        self._last = (sequence, index)

    def evicted(self, key: int) -> None:
        """The cache gave a block up. Blocks of answers, below 0, were never announced."""
        if key >= 0:
            self._events.append(
                {"type": "BlockRemoved", "block_hashes": [key], "medium": "GPU", "group_idx": 0}
            )
            self._last = None

    def cleared(self) -> None:
        """The cache was emptied."""
        self._events.append({"type": "AllBlocksCleared"})
        self._last = None

    def flush(self) -> None:
        """Publish what was collected."""
        if self._events:
            self._publisher.publish(self._events)
            self._events, self._last = [], None
