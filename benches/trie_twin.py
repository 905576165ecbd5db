"""A prefix trie as Python routers have it: a node per 128-character chunk, a set of URLs in each.

The algorithm of production-stack's prefix router, written from its description, without its locks.
"""

import random
from collections.abc import Iterator

import xxhash

CHUNK = 128


class Node:
    """What is known of all prompts with this head."""

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.urls: set[str] = set()


class Trie:
    """Grows with every prompt; forgets nothing."""

    def __init__(self) -> None:
        self.root = Node()

    def chunks(self, prompt: str) -> Iterator[int]:
        """Hashes of the prompt's chunks, a short tail included."""
        for start in range(0, len(prompt), CHUNK):
            yield xxhash.xxh64_intdigest(prompt[start : start + CHUNK].encode())

    def match(self, prompt: str, urls: set[str]) -> tuple[int, set[str]]:
        """Characters that the longest match covers, and the URLs that have it."""
        node, length, found = self.root, 0, urls
        for chunk in self.chunks(prompt):
            child = node.children.get(chunk)
            here = child.urls & found if child else set()
            if not child or not here:
                break
            node, length, found = child, length + CHUNK, here
        return length, found

    def insert(self, prompt: str, url: str) -> None:
        """The URL has this prompt from now on."""
        node = self.root
        node.urls.add(url)
        for chunk in self.chunks(prompt):
            node = node.children.setdefault(chunk, Node())
            node.urls.add(url)


def route(trie: Trie, urls: set[str], prompt: str, rng: random.Random) -> str:
    """Any of those that match longest, and the prompt is put there."""
    _, found = trie.match(prompt, urls)
    chosen = rng.choice(list(found))
    trie.insert(prompt, chosen)
    return chosen
