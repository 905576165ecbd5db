"""No entry point of the compiled core runs foreign code under a lock."""

import subprocess
import sys
from pathlib import Path

import reentry
from routecore import _core

LIMIT = 100  # seconds; it takes some


def entry_points() -> set[str]:
    """Functions of the core, and what its classes add to `object`."""
    found = set()
    for name, value in vars(_core).items():
        if isinstance(value, type):
            own = set(vars(value)) - {"__doc__", "__module__"}
            found |= {f"{name}.{member}" for member in own}
        elif callable(value):
            found.add(name)
    return found


def test_every_entry_point_has_a_case() -> None:
    assert entry_points() == set(reentry.CASES) | reentry.ELSEWHERE


def test_nothing_hangs_while_foreign_code_calls_in_again() -> None:
    script = Path(__file__).with_name("reentry.py")
    done = subprocess.run(
        [sys.executable, str(script), str(LIMIT)],
        capture_output=True,
        text=True,
        timeout=LIMIT + 30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{reentry.THREADS} threads done\n"
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
