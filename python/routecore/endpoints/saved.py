"""What a table has learned, as a file."""

import zlib
from pathlib import Path
from typing import Protocol

import msgspec

from routecore import _core
from routecore.errors import RouteError
from routecore.whole_file import replace_file

_MOST_BYTES = 1 << 30
_NONE = (0, 0, 0)

Hashing = tuple[int, int, int]
"""Seed of an index's hashes, bytes of a block of text, token ids of a block."""


class Hashes(Protocol):
    """A router, as far as its prefix index is kept: what it hashes with."""

    @property
    def hashing(self) -> Hashing:
        """Seed, bytes of a block of text, token ids of a block."""
        ...


class _File(msgspec.Struct):
    """The file: URLs, their checksum, and the state of their rows, which has one of its own."""

    routecore: str
    urls: list[str]
    check: int
    state: bytes


def _check(urls: list[str]) -> int:
    return zlib.crc32("\n".join(urls).encode("utf-8", "surrogatepass"))


def save(path: str | Path, table: _core.Table, hashing: Hashing | None) -> None:
    """See `EndpointTable.save`."""
    path = Path(path).resolve()
    urls, state = _core.save_table(table, hashing or _NONE)
    content = msgspec.msgpack.encode(_File(_core.VERSION, urls, _check(urls), state))
    replace_file(path, content)


def load(path: str | Path, table: _core.Table, hashing: Hashing | None) -> bool:
    """See `EndpointTable.load`."""
    found = _read(path)
    if found is None:
        return False
    try:
        _core.load_table(table, found.urls, found.state, hashing or _NONE)
    except RouteError as error:
        raise RouteError(f"{path}: {error}") from None
    return True


def hash_seed(path: str | Path) -> int | None:
    """The seed that the saved index was hashed with; None where there is no such file."""
    found = _read(path)
    if found is None:
        return None
    try:
        return _core.saved_hashing(found.state)[0]
    except RouteError as error:
        raise RouteError(f"{path}: {error}") from None


def _read(path: str | Path) -> _File | None:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > _MOST_BYTES:
        raise RouteError(f"{path}: more than {_MOST_BYTES >> 30} GiB, no saved state of routecore")
    try:
        found = msgspec.msgpack.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RouteError(
            f"{path}: no saved state of routecore, or damaged; delete it, and the router "
            "learns anew"
        ) from None
    if found.check != _check(found.urls):
        raise RouteError(f"{path}: damaged; delete it, and the router learns anew")
    return found
