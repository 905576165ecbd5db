"""Subinterpreters are refused, and the main interpreter does not suffer from the attempt."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib
interpreters = importlib.import_module(
    "_xxsubinterpreters" if __import__("sys").version_info < (3, 13) else "_interpreters"
)
made = interpreters.create()
{before}
error = interpreters.run_string(made, '''
try:
    import routecore
except ImportError as error:
    assert "subinterpreter" in str(error), error
else:
    raise SystemExit("routecore was imported")
''')
assert error is None, error
import routecore
try:
    routecore.LeastConnectionsRouter().route_request([], {{}}, {{}}, None)
except routecore.RouteError:
    print("refused")
"""


@pytest.mark.parametrize("before", ["import routecore", "pass"])
def test_a_subinterpreter_is_refused(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
