"""What we would have done beside what the host did: records, one JSON object a line, and a sum."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

CHARS_PER_TOKEN = 4  # where only text is known
_FLUSH_SECONDS = 1.0


class Record(msgspec.Struct, omit_defaults=True):
    """One request; tokens are estimated from characters, None is "not known".

    Attributes:
        time: Seconds since the epoch.
        strategy: Ours.
        host: The endpoint the request went to.
        ours: The endpoint we would have sent it to.
        prompt_tokens: Length of its prompt.
        host_hit_tokens: Of these, in the cache of the host's choice, had it kept all it was sent.
        our_hit_tokens: The same of our choice, had it been sent what we would have sent it.
        host_latency_ms: Expected by our strategy at the host's choice.
        our_latency_ms: Expected by our strategy at our choice.
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
        self._flushed = 0.0

    def write(self, record: Record) -> None:
        """Append a record; on disk within about a second of further records.

        Raises:
            OSError: The file cannot be written.
        """
        line = msgspec.json.encode(record) + b"\n"
        if self._file is None or self._size + len(line) > self._max:
            self._open()
        assert self._file is not None
        self._file.write(line)
        self._size += len(line)
        now = time.monotonic()
        if now - self._flushed > _FLUSH_SECONDS:
            self._flushed = now
            self._file.flush()

    def _open(self) -> None:
        if self._file is not None:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("ab")
        self._size = self._file.tell()

    def close(self) -> None:
        """Write what is buffered; a later record opens the file again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def shadow_log(path: str, max_bytes: int) -> ShadowLog:
    """The process's log of that name, in which "{pid}" stands for its number."""
    return _of_file(path.replace("{pid}", str(os.getpid())), max_bytes)


@cache
def _of_file(path: str, max_bytes: int) -> ShadowLog:
    """One per file: two buffers would tear each other's lines."""
    return ShadowLog(path, max_bytes)


class Summary(msgspec.Struct):
    """What would have differed; shares are 0 to 1, None where nothing is known.

    Attributes:
        requests: Records read.
        skipped: Lines that are no record.
        strategy: Ours.
        agreement: Share of requests that we would have sent where the host sent them.
        hit_rate: `host` and `ours`: predicted hit tokens per prompt token.
        busiest_share: `host` and `ours`: share of requests at the endpoint with the most.
        latency_ms: `host` and `ours`: mean predicted latency.
    """

    requests: int
    skipped: int
    strategy: str
    agreement: float
    hit_rate: dict[str, float | None]
    busiest_share: dict[str, float]
    latency_ms: dict[str, float | None]


def summarise(paths: Iterable[Path]) -> Summary:
    """Sum up the records of some files.

    Raises:
        ValueError: There is no record in them.
    """
    skipped = requests = agreed = 0
    strategy = ""
    prompt = 0.0
    hits = {"host": 0.0, "ours": 0.0}
    urls: dict[str, Counter[str]] = {"host": Counter(), "ours": Counter()}
    latency: dict[str, list[float]] = {"host": [], "ours": []}
    for record in _records(paths):
        if record is None:
            skipped += 1
            continue
        requests += 1
        strategy = record.strategy
        agreed += record.host == record.ours
        prompt += record.prompt_tokens
        hits["host"] += record.host_hit_tokens
        hits["ours"] += record.our_hit_tokens
        urls["host"][record.host] += 1
        urls["ours"][record.ours] += 1
        if record.host_latency_ms is not None and record.our_latency_ms is not None:
            latency["host"].append(record.host_latency_ms)
            latency["ours"].append(record.our_latency_ms)
    if not requests:
        raise ValueError("no record of shadow mode in it")
    return Summary(
        requests=requests,
        skipped=skipped,
        strategy=strategy,
        agreement=agreed / requests,
        hit_rate={who: hits[who] / prompt if prompt else None for who in hits},
        busiest_share={who: max(urls[who].values()) / requests for who in urls},
        latency_ms={
            who: sum(times) / len(times) if times else None for who, times in latency.items()
        },
    )


def _records(paths: Iterable[Path]) -> Iterator[Record | None]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Record)
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    yield None
