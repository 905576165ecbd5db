"""Where the reference traces are: beside the repository, never in it."""

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[3] / "shared" / "traces"


def reference(name: str) -> Path:
    """The file; skips the test where it is missing."""
    path = _FOLDER / name
    if not path.exists():
        pytest.skip(f"reference trace {name} is not beside the repository")
    return path
