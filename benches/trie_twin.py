"""A prefix trie as Python routers have it: a node per 128-character chunk, a set of URLs in each.

The algorithm of production-stack's prefix router, written from its description: asynchronous, a
lock in every node, match and then insert.
"""

import asyncio
import random
from collections.abc import Iterator

import xxhash

CHUNK = 128


class Node:
    """What is known of all prompts with this head."""

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.urls: set[str] = set()
        self.lock = asyncio.Lock()


class Trie:
    """Grows with every prompt; forgets nothing."""

    def __init__(self) -> None:
        self.root = Node()

    def chunks(self, prompt: str) -> Iterator[int]:
        """Hashes of the prompt's chunks, a short tail included."""
        for start in range(0, len(prompt), CHUNK):
            yield xxhash.xxh64_intdigest(prompt[start : start + CHUNK].encode())

    async def match(self, prompt: str, urls: set[str]) -> tuple[int, set[str]]:
        """Characters that the longest match covers, and the URLs that have it."""
        node, length, found = self.root, 0, urls
        for chunk in self.chunks(prompt):
            async with node.lock:
                child = node.children.get(chunk)
                here = child.urls & found if child else set()
            if not child or not here:
                break
            node, length, found = child, length + CHUNK, here
        return length, found

    async def insert(self, prompt: str, url: str) -> None:
        """The URL has this prompt from now on."""
        node = self.root
        async with node.lock:
            node.urls.add(url)
        for chunk in self.chunks(prompt):
            async with node.lock:
                if chunk not in node.children:
                    node.children[chunk] = Node()
                node = node.children[chunk]
            async with node.lock:
                node.urls.add(url)


async def _route(trie: Trie, urls: set[str], prompt: str, rng: random.Random) -> str:
    _, found = await trie.match(prompt, urls)
    chosen = rng.choice(list(found))
    await trie.insert(prompt, chosen)
    return chosen


def route(trie: Trie, urls: set[str], prompt: str, rng: random.Random) -> str:
    """Any of those that match longest, and the prompt is put there.

    Nobody else holds a lock, so the coroutine never waits; no event loop is timed.
    """
    try:
        _route(trie, urls, prompt, rng).send(None)
    except StopIteration as done:
        url: str = done.value
        return url
    raise AssertionError("a lock was held")
