"""Prompts as text, and a bounded index of who saw which, in the host's own terms."""

import json
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

CHUNK = 128  # characters, as the host's trie
_MAX_CHUNKS = 1 << 16


def prompt_text(body: Any) -> str:
    """The text by which the host compares prompts; empty for a body without any.

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


class PromptIndex:
    """Which endpoints were sent which beginnings; the chunks unused for longest are forgotten.

    Stands in for the host's `hashtrie`, whose two calls it has.
    """

    def __init__(self, max_chunks: int = _MAX_CHUNKS) -> None:
        self._max = max_chunks
        self._seen: OrderedDict[int, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def match(self, text: str, urls: set[str]) -> tuple[int, set[str]]:
        """Characters of the longest beginning that some of `urls` saw, in whole chunks, and which.

        All of `urls` if none saw any.
        """
        length, found = 0, urls
        for key in _keys(text):
            here = self._seen.get(key)
            both = found & here if here else None
            if not both:
                break
            self._seen.move_to_end(key)
            length, found = length + CHUNK, both
        return length, found

    def add(self, text: str, url: str) -> None:
        """The endpoint was sent this text."""
        for key in _keys(text):
            self._seen.setdefault(key, set()).add(url)
            self._seen.move_to_end(key)
        while len(self._seen) > self._max:
            self._seen.popitem(last=False)

    async def longest_prefix_match(self, request: str, urls: set[str]) -> tuple[int, set[str]]:
        """`match`, as the host's trie spells it."""
        return self.match(request, urls)

    async def insert(self, request: str, endpoint: str) -> None:
        """`add`, as the host's trie spells it."""
        self.add(request, endpoint)


def _keys(text: str) -> Iterator[int]:
    key = 0
    for start in range(0, len(text), CHUNK):
        key = hash((key, text[start : start + CHUNK]))
        yield key
