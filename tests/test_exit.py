"""A process ends with code 0 whatever its threads are doing in the compiled core."""

import exits
import pytest


@pytest.mark.parametrize("name", exits.KINDS)
def test_a_process_ends_well(name: str) -> None:
    for _ in range(2):
        done = exits.end_once(name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
