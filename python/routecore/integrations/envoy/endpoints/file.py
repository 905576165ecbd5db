"""Endpoints of a file, which is read again when it changes."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from routecore.errors import RouteError
from routecore.integrations.envoy.endpoints.address import Address, read

_log = logging.getLogger("routecore.picker")
_EVERY = 1.0  # seconds between two looks at the file's stamp

Found = Callable[[dict[Address, bool]], object]
"""Called with all endpoints that there are, each ready or not."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    ready: bool = True


class _File(msgspec.Struct, forbid_unknown_fields=True):
    endpoints: list[str | _Entry]


def load(path: Path) -> dict[Address, bool]:
    """The endpoints of a YAML or JSON file: a list, or a list under `endpoints`.

    Each is `IP:PORT`, or `{address: IP:PORT, ready: false}` for one that gets nothing new.

    Raises:
        RouteError: It cannot be read, or is something else; names the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RouteError(f"endpoints {str(path)!r}: {error.strerror}") from None
    decode: Any = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    try:
        found = decode(content)
        if isinstance(found, list):
            found = {"endpoints": found}
        entries = msgspec.convert(found, _File).endpoints
    except RecursionError:
        raise RouteError(f"endpoints {str(path)!r}: nested too deeply") from None
    except ValueError as error:
        raise RouteError(f"endpoints {str(path)!r}: {error}") from None
    except ImportError:
        raise RouteError(
            f"endpoints {str(path)!r}: reading YAML needs pyyaml; install it or use .json"
        ) from None
    made: dict[Address, bool] = {}
    for entry in entries:
        address = read(entry if isinstance(entry, str) else entry.address)
        made[address] = isinstance(entry, str) or entry.ready
    return made


async def watch(path: Path, found: Found) -> None:
    """Tell of the file's endpoints each time it changes. What cannot be read changes nothing."""
    stamp: Any = None
    while True:
        now = _stamp(path)
        if now != stamp:
            stamp = now
            try:
                found(load(path))
            except RouteError as error:
                _log.warning("%s; the endpoints stay as they were", error)
        await asyncio.sleep(_EVERY)


def _stamp(path: Path) -> Any:
    try:
        stat = path.stat()  # through links: Kubernetes exchanges the link of a mounted ConfigMap
    except OSError as error:
        return error.errno
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
