"""Prompts as text, and a bounded index of who was sent which."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

CHARS_PER_TOKEN = 4  # where only text is known
CHUNK = 128  # characters, as production-stack's trie
_MAX_CHUNKS = 1 << 16


def prompt_text(body: Any) -> str:
    """The text by which production-stack compares prompts; empty for a body without any.

    Texts of the messages, joined by newlines; else the prompt, lists of texts or tokens too.
    """
    if not isinstance(body, dict):
        return ""
    messages = body.get("messages")
    if isinstance(messages, list):
        return "\n".join(_content(m.get("content")) for m in messages if isinstance(m, dict))
    for name in ("prompt", "input"):
        prompt = body.get(name)
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, list):
            texts = all(isinstance(part, str) for part in prompt)
            return "\n".join(prompt) if texts else json.dumps(prompt)
    return ""


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


class BlockIndex:
    """Which endpoints were sent which blocks; those unused for longest are forgotten.

    Args:
        max_blocks: How many are kept.
    """

    def __init__(self, max_blocks: int = _MAX_CHUNKS) -> None:
        self._max = max_blocks
        self._seen: OrderedDict[int, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def match(self, keys: Iterable[int], urls: set[str]) -> tuple[int, set[str]]:
        """How many blocks from the first on some of `urls` were sent, and which of them.

        All of `urls` if none was sent any.

        Args:
            keys: One a block; each stands for all of the prompt up to there.
            urls: The endpoints asked about.
        """
        count, found = 0, urls
        for key in keys:
            here = self._seen.get(key)
            both = found & here if here else None
            if not both:
                break
            self._seen.move_to_end(key)
            count, found = count + 1, both
        return count, found

    def add(self, keys: Iterable[int], url: str) -> None:
        """The endpoint was sent these blocks."""
        for key in keys:
            self._seen.setdefault(key, set()).add(url)
            self._seen.move_to_end(key)
        while len(self._seen) > self._max:
            self._seen.popitem(last=False)


class PromptIndex(BlockIndex):
    """The same by text; stands in for the host's `hashtrie`, whose two calls it has."""

    async def longest_prefix_match(self, request: str, urls: set[str]) -> tuple[int, set[str]]:
        """Characters of the longest beginning that some of `urls` saw, in whole chunks; which."""
        chunks, found = self.match(_keys(request), urls)
        return chunks * CHUNK, found

    async def insert(self, request: str, endpoint: str) -> None:
        """The endpoint was sent this text."""
        self.add(_keys(request), endpoint)


def _keys(text: str) -> Iterator[int]:
    key = 0
    for start in range(0, len(text), CHUNK):
        key = hash((key, text[start : start + CHUNK]))
        yield key
