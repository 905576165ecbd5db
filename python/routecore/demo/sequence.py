"""One request inside a simulated engine."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

BLOCK_TOKENS = 16


@dataclass(eq=False)
class Sequence:
    """One request inside the engine; counts are tokens."""

    prompt: int
    keys: list[int]
    output: int
    known: int = 0
    done: int = 0
    emitted: int = 0
    cached: int = 0
    started: bool = False
    held: list[int] = field(default_factory=list)
    token_ids: Any = None
    tokens: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)
