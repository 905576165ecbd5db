"""Lines of a trace file, one at a time, and errors that say which one is bad."""

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from routecore.errors import RouteError
from routecore.replay.columns import Trace

MAX_LINE = 64 << 20
"""Bytes of one line, at most: a packed file may hold one that is larger than memory."""


class BadLine(RouteError):
    """A line that is no request; `skip_bad` would leave it out."""


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line that is not empty; .gz files are unpacked.

    Raises:
        RouteError: The file cannot be read, or is no whole gzip file.
    """
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise RouteError(f"{path}:{number}: a line of more than {MAX_LINE >> 20} MB")
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line and not line.isspace():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RouteError(f"{path}:{number + 1}: not a whole gzip file: {error}") from None
    except OSError as error:
        raise RouteError(f"{path}: {error.strerror or error}") from None


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path)
    return path.open("rb")


def read_rows(
    path: Path,
    trace: Trace,
    add: Callable[[bytes], object],
    *,
    skip_bad: bool,
    header: bool = False,
) -> Trace:
    """Feed each line to `add`; a `ValueError` it raises is the line's.

    Args:
        path: The file.
        trace: What `add` adds to; counts the lines skipped.
        add: Takes a line apart and adds it; raises `ValueError("field: reason")`.
        skip_bad: Leave bad lines out instead of failing.
        header: Whether the first line is one that `add` must not see.

    Raises:
        BadLine: "file:line: field: reason" for the first bad line.
        RouteError: A file without requests.
    """
    for number, line in lines(path):
        if header:
            header = False
            continue
        try:
            add(line)
        except (ValueError, RecursionError) as error:  # msgspec's and UnicodeDecodeError, too
            if not skip_bad:
                deep = isinstance(error, RecursionError)
                reason = "nested too deeply" if deep else error
                raise BadLine(f"{path}:{number}: {reason}") from None
            trace.skipped += 1
    if not len(trace):
        bad = f", {trace.skipped} bad lines" if trace.skipped else ""
        raise RouteError(f"{path}: no requests in it{bad}")
    return trace


def field_first(error: Exception) -> ValueError:
    """msgspec's "reason - at `$.field`" as "field: reason"."""
    reason, _, where = str(error).partition(" - at `$.")
    return ValueError(f"{where.rstrip('`')}: {reason}" if where else reason)
