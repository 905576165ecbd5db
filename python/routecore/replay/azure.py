"""Azure's CSV of LLM inference: arrivals and lengths, no prompts, so nothing is ever reused."""

from datetime import datetime
from pathlib import Path

from routecore.errors import RouteError
from routecore.replay.columns import Trace
from routecore.replay.lines import lines, read_rows

_HEADER = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]


def _tokens(field: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{field}: expected a whole number, got {text!r}") from None


def read(path: Path, *, skip_bad: bool = False) -> Trace:
    """Read an Azure trace (2023 or later), CSV or .csv.gz.

    Raises:
        RouteError: A bad line, with its number, field and reason; another header.
    """
    head = next(lines(path), (1, b""))[1].decode(errors="replace").strip().lstrip("\ufeff")
    if head.split(",") != _HEADER:
        raise RouteError(f"{path}:1: expected the header {','.join(_HEADER)}, got {head[:80]!r}")
    trace = Trace(1, path.name)

    def add(line: bytes) -> None:
        parts = line.decode().strip().split(",")
        if len(parts) != 3:
            raise ValueError(f"expected 3 fields, got {len(parts)}")
        try:
            time = datetime.fromisoformat(parts[0]).timestamp()
        except ValueError:
            raise ValueError(f"TIMESTAMP: expected a date and time, got {parts[0]!r}") from None
        trace.add(time * 1e3, _tokens(_HEADER[1], parts[1]), _tokens(_HEADER[2], parts[2]))

    return read_rows(path, trace, add, skip_bad=skip_bad, header=True)
