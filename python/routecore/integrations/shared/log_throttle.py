"""How often a line about failures is logged."""

import time

_SECONDS = 60.0


class LogThrottle:
    """Counts what goes wrong, and lets one line a minute speak of it."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._count = 0

    def __call__(self) -> int:
        """Count one; if a line is due, how many there were since the last line, else 0."""
        self._count += 1
        now = time.monotonic()
        if now - self._at < _SECONDS:
            return 0
        count, self._at, self._count = self._count, now, 0
        return count
