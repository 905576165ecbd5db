"""How a page was made, so that somebody else can make it again."""

import hashlib
import platform
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from routecore import _core


class Made(msgspec.Struct, frozen=True):
    """How a page was made.

    Attributes:
        command: What to type; None for a page made from Python.
        source: The trace: a file with its hash, or how it was drawn.
        date: When, in UTC.
        version: Of routecore.
        python: And its machine.
    """

    command: str | None = None
    source: str | None = None
    date: str = ""
    version: str = _core.VERSION
    python: str = ""

    @classmethod
    def now(cls, command: str | None, source: str | None) -> "Made":
        """Made now, here."""
        machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return cls(command, source, date, python=machine)


def source_of(path: Path) -> str:
    """A trace file by its name and hash."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name}, sha256 {digest[:16]}"
