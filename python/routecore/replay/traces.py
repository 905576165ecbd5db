"""Trace files of every format, by name or by their first line."""

import json
from pathlib import Path
from typing import Any

import msgspec

from routecore.errors import RouteError, unknown
from routecore.replay import azure, bailian, mooncake, openai_log, shadow_records
from routecore.replay.columns import Trace
from routecore.replay.lines import lines
from routecore.requests.body import PROMPTS

FORMATS = ("mooncake", "azure", "bailian", "openai", "shadow")
"""Names of the formats that `read_trace` knows."""


def _decode(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return json.loads(line)  # takes the lone surrogates that msgspec refuses


def _guess(path: Path) -> str:
    number, line = next(lines(path), (1, b""))
    if not line:
        raise RouteError(f"{path}: the file is empty, no requests in it")
    if b"ContextTokens" in line:
        return "azure"
    try:
        row = _decode(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RouteError(
            f"{path}:{number}: neither a JSON object nor Azure's header; expected a file of one of "
            f"the formats {', '.join(FORMATS)}"
        )
    if {"time", "host", "ours"} <= row.keys():
        return "shadow"
    if "hash_ids" in row:
        return "bailian" if "chat_id" in row else "mooncake"
    if any(name in row for name in ("body", "request", *PROMPTS)):
        return "openai"
    return "bailian" if "chat_id" in row else "mooncake"


def read_trace(
    path: str | Path, format: str | None = None, *, block: int | None = None, skip_bad: bool = False
) -> Trace:
    """Read a trace file, line by line; may be .gz.

    Args:
        path: The file.
        format: "mooncake", "azure", "bailian" or "openai" (a log of requests) or "shadow" (records
            of a host in shadow mode); by its first line if left out.
        block: Tokens a hash id of a Mooncake trace stands for; 512 if left out.
        skip_bad: Leave bad lines out and count them, instead of failing.

    Raises:
        RouteError: The file cannot be read, or a line is bad: its number, field and reason.
    """
    path = Path(path)
    kind = format or _guess(path)
    if kind not in FORMATS:
        raise RouteError(f"format: unknown {unknown(kind, FORMATS)}")
    if kind == "mooncake":
        return mooncake.read(path, 512 if block is None else block, skip_bad=skip_bad)
    if block is not None:
        raise RouteError(f"block size: a trace of the format {kind} has its own; leave it out")
    readers = {
        "azure": azure.read,
        "bailian": bailian.read,
        "openai": openai_log.read,
        "shadow": shadow_records.read,
    }
    return readers[kind](path, skip_bad=skip_bad)
