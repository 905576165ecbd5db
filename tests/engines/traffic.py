"""Chat sessions: shared system prompts, turns that grow by the engine's answers, some salts."""

import random
from collections.abc import Iterator
from typing import Any

TEXT = "time engine cache block token router prompt answer shop order ship price day week"
WORDS = TEXT.split()


def words(draw: random.Random, count: int) -> str:
    """So many words."""
    return " ".join(draw.choices(WORDS, k=count))


class Sessions:
    """Whose next turn is drawn at random.

    Args:
        seed: Of all draws.
        open_at_once: Sessions that go on beside one another.
    """

    def __init__(self, seed: int, open_at_once: int = 12) -> None:
        self._draw = random.Random(seed)
        self._systems = [words(self._draw, self._draw.randint(60, 300)) for _ in range(5)]
        self._open = [self._new() for _ in range(open_at_once)]

    def _new(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": "tiny",
            "messages": [{"role": "system", "content": self._draw.choice(self._systems)}],
            "temperature": 0.0,
        }
        if self._draw.random() < 0.15:
            body["cache_salt"] = self._draw.choice(["one", "two"])
        return body

    def turn(self) -> tuple[int, dict[str, Any]]:
        """A session's number and its next request."""
        at = self._draw.randrange(len(self._open))
        if len(self._open[at]["messages"]) > 2 * self._draw.randint(1, 8):
            self._open[at] = self._new()
        asked = {"role": "user", "content": words(self._draw, self._draw.randint(5, 120))}
        body = self._open[at]
        messages = [*body["messages"], asked]
        return at, {**body, "messages": messages, "max_tokens": self._draw.randint(2, 40)}

    def answered(self, at: int, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """The session goes on with the answer."""
        message = answer["choices"][0]["message"]
        said = {"role": "assistant", "content": message["content"] or ""}
        self._open[at] = {**self._open[at], "messages": [*body["messages"], said]}

    def turns(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """So many, one after the other."""
        for _ in range(count):
            yield self.turn()
