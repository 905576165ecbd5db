"""How Serve chooses where our strategy does not."""

import random
from typing import Any


def two_of(candidates: list[Any]) -> list[list[Any]]:
    """Serve's own rule: of two random replicas it takes the one with the shorter queue."""
    if not candidates:
        return []
    return [random.sample(candidates, min(2, len(candidates)))]
