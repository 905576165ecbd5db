"""The exact index, by URLs and token ids."""

import secrets
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from routecore import _core
from routecore.uncopied import Uncopied


class KVIndex(Uncopied):
    """Which leading tokens of a prompt each endpoint's engine holds, by its own events.

    Lookups may come from any thread while events are applied; they wait for microseconds at most.

    Args:
        seed: Of the block keys; drawn at random if left out.
        max_blocks: Most blocks kept per publisher; each takes at most 64 bytes.
    """

    _all: ClassVar["weakref.WeakSet[KVIndex]"] = weakref.WeakSet()

    def __init__(self, *, seed: int | None = None, max_blocks: int = 1 << 22) -> None:
        self.core: _core.KvIndex = _core.KvIndex(
            secrets.randbits(64) if seed is None else seed, max_blocks
        )
        self._disbelieved: Counter[str] = Counter()
        self._all.add(self)

    @classmethod
    def note_trust(cls, url: str, believed: bool) -> bool:
        """Say of an endpoint whether answers bear its events out; False if no index hears it."""
        heard = [index for index in list(cls._all) if index.core.set_doubted(url, not believed)]
        for index in heard:
            index._disbelieved[url] += not believed
        return bool(heard)

    def matched(
        self,
        token_ids: Any,
        urls: Sequence[str],
        *,
        lora_name: str | None = None,
        cache_salt: str | None = None,
        extra_keys: Sequence[Sequence[Any] | None] | None = None,
    ) -> list[tuple[int, int, int]]:
        """Tokens of the prompt's start that each engine need not compute.

        Only whole blocks from the first on count, and never the prompt's last token.

        Args:
            token_ids: The prompt: a buffer of 32 or 64 bit integers (numpy, `array`), or a list.
            urls: The endpoints asked about. One without events holds nothing.
            lora_name: The LoRA adapter, as the engine names it.
            cache_salt: The request's `cache_salt`.
            extra_keys: Per block, what it depends on beside its tokens, as engines list it:
                (multimodal identifier, offset within the block) pairs.

        Returns:
            Per URL: tokens on the device; tokens on device or host; these and the disk's.

        Raises:
            RouteError: If the token ids or extra keys are not of this form.
        """
        extras = None
        if cache_salt is not None or extra_keys is not None:
            blocks = [list(keys or ()) for keys in extra_keys or ()] or [[]]
            if cache_salt is not None:
                blocks[0].append(cache_salt)
            extras = msgspec.msgpack.encode(blocks)
        return self.core.matched(token_ids, list(urls), lora_name, extras)

    def is_exact(self, url: str) -> bool:
        """Whether the endpoint's events are complete: what is not held here is not held at all.

        Where this is False the matches are still true, but the engine may hold more, and while
        a loss is being made good nothing of it matches: ask what was routed there instead. So it
        is after anything that does not fit: events that cannot be placed, another block size, a
        data-parallel rank that was not heard yet, two endpoints said to have one publisher, and
        answers whose `usage` contradicts the events again and again.
        """
        return self.core.exact([url])[0]

    def block_size(self, url: str) -> int:
        """Tokens of the endpoint's blocks; 0 until its first is stored."""
        return self.core.block_size(url)

    def counters(self, url: str, rank: int = 0) -> dict[str, Any] | None:
        """What happened on a publisher's stream, by name; None if it was never heard of."""
        counters = self.core.counters(url, rank)
        if counters is not None:
            counters["disbelieved"] = self._disbelieved[url]
        return counters

    def forget(self, url: str | None = None) -> None:
        """Forget an endpoint's blocks: its engine sleeps, or lost its cache without a word.

        Args:
            url: The endpoint; all of them if left out.
        """
        self.core.forget(url)

    def remove(self, url: str) -> bool:
        """Forget an endpoint and give its memory back; False if it was unknown."""
        self._disbelieved.pop(url, None)
        return self.core.drop_endpoint(url)

    @property
    def blocks(self) -> int:
        """Different blocks that any engine holds."""
        return self.core.blocks

    @property
    def bytes(self) -> int:
        """Bytes of memory in use."""
        return self.core.bytes
