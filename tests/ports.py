"""Ports of this machine for a test's own servers."""

import os
import random
import socket

# Above the ports of Ray's workers (10002 to 19999) and below those that systems hand out by
# themselves (from 32768 on Linux, 49152 elsewhere), so that no neighbour's connection takes one
# between its choice and its use. Processes that test at the same time have a part each.
_FIRST, _PART, _PARTS = 20_000, 1_500, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_begin = random.SystemRandom().randrange(_PART)
_given = 0


def free_port() -> int:
    """A port that nobody has, and that this process has not given for a long time."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports in a row, as `free_port`, the lowest first."""
    global _given
    for _ in range(_PART):
        at = (_begin + _given) % _PART
        _given += count
        first = _FIRST + _worker % _PARTS * _PART + at
        ports = list(range(first, first + count))
        if at + count <= _PART and all(map(_free, ports)):
            return ports
    raise AssertionError(f"no {count} free ports in a row")


def _free(port: int) -> bool:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
