"""The records of shadow mode, one JSON object a line, in files of bounded size."""

import os
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from routecore.process import renew_lock

BLOCK_TOKENS = 128
"""Tokens of a prompt that one number of a record's `hash_ids` stands for."""


class Record(msgspec.Struct, omit_defaults=True):
    """One request; tokens of prompts are estimated from text, None is "not known".

    Attributes:
        time: When it arrived, in seconds since the epoch.
        strategy: Ours.
        host: The endpoint the request went to.
        ours: The endpoint we would have sent it to.
        prompt_tokens: Length of its prompt.
        host_hit_tokens: Of these, in the cache of the host's choice, had it kept all it was sent.
        our_hit_tokens: The same of our choice, had it been sent what we would have sent it.
        host_latency_ms: Expected by our strategy at the host's choice.
        our_latency_ms: Expected by our strategy at our choice.
        hash_ids: A number for each full block of `BLOCK_TOKENS` of its prompt: where two prompts
            have the same number, they are the same up to there. Nothing of the text is kept.
        output_tokens: Tokens of the answer, as the engine counted them.
        max_tokens: Tokens that it asked for at most.
        ttft_ms: Until the first token, at the host's choice, where the host tells of it.
        took_ms: Until its end, at the host's choice; None if it failed.
    """

    time: float
    strategy: str
    host: str
    ours: str
    prompt_tokens: float = 0
    host_hit_tokens: float = 0
    our_hit_tokens: float = 0
    host_latency_ms: float | None = None
    our_latency_ms: float | None = None
    hash_ids: list[int] = []
    output_tokens: int | None = None
    max_tokens: int | None = None
    ttft_ms: float | None = None
    took_ms: float | None = None


class ShadowLog:
    """Appends records to a file that stays below twice `max_bytes`: beside it, `.1` is the older.

    Args:
        path: The file.
        max_bytes: Where the file is set aside.
    """

    def __init__(self, path: str | Path, max_bytes: int = 64 << 20) -> None:
        self._path, self._max = Path(path), max_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        self._lock = threading.Lock()
        renew_lock(self, "_lock")

    def write(self, record: Record) -> None:
        """Append a record. It is not buffered: servers end by signals that run no exit handler.

        Raises:
            OSError: The file cannot be written.
        """
        line = msgspec.json.encode(record) + b"\n"
        with self._lock:
            if self._file is None or self._size + len(line) > self._max:
                self._open()
            assert self._file is not None
            self._size += len(line)
            while line:  # a full disk or a signal may cut it short
                line = line[self._file.write(line) :]

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("ab", buffering=0)
        self._size = self._file.tell()

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def shadow_log(path: str, max_bytes: int) -> ShadowLog:
    """The process's log of that name, in which "{pid}" stands for its number."""
    return _of_file(os.path.abspath(path.replace("{pid}", str(os.getpid()))), max_bytes)


@cache
def _of_file(path: str, max_bytes: int) -> ShadowLog:
    """One per file: two would not know how much the other wrote."""
    return ShadowLog(path, max_bytes)


def records(paths: Iterable[Path]) -> Iterator[Record | None]:
    """The records of some files in turn; None for a line that is none.

    Raises:
        OSError: A file cannot be read.
    """
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Record)
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    yield None
