"""One request of shadow mode: where the host sent it, where we would have, what came of it."""

import atexit
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from routecore import _core
from routecore.integrations.shared.prompts import BlockIndex
from routecore.integrations.shared.settings import Settings
from routecore.integrations.shared.shadow.log import BLOCK_TOKENS, Record, ShadowLog, shadow_log

_BLOCK = 32  # tokens by which hits are predicted; as many as the host's own trie has, about
_PER_ID = BLOCK_TOKENS // _BLOCK
_MAX_OPEN = 65_536
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")


class Shadow:
    """Our side of a host's decisions: chooses beside it, and keeps record.

    Two indexes foretell what would be cached: of what the host sent where, and of what we would
    have; as if engines kept what they were sent.

    Args:
        settings: Where to record.
        strategy: Its word, for the records.
        router: The strategy.
        failed: Called with what goes wrong in recording; nothing is raised for it.
    """

    strategy: str

    def __init__(
        self, settings: Settings, strategy: str, router: Any, failed: Callable[[Exception], None]
    ) -> None:
        self.log: ShadowLog = shadow_log(settings.shadow_file, settings.shadow_max_bytes)
        self.strategy, self._router, self._failed = strategy, router, failed
        self._explains = True
        self._host, self._ours = BlockIndex(), BlockIndex()
        self._open: OrderedDict[Choice, None] = OrderedDict()
        _living.add(self)

    def choose(self, asked: tuple[Any, ...], rule: Callable[..., str] | None = None) -> "Choice":
        """Our choice for a request, and what our strategy expects at each endpoint.

        Args:
            asked: The arguments of `route_request`, with the parsed body at the end.
            rule: What active mode would choose by instead of the strategy.
        """
        # Before the choice, which counts as load where it falls.
        expected = self._expected(asked)
        began = time.perf_counter()
        ours = (self._router.route_request if rule is None else rule)(*asked)
        return Choice(self, ours, time.perf_counter() - began, expected, asked[-1])

    def _expected(self, asked: tuple[Any, ...]) -> dict[str, float]:
        """URL → latency in milliseconds, from a strategy whose score is a sum of them."""
        if not self._explains or not hasattr(self._router, "explain"):
            return {}
        ms: dict[str, float] = {}
        for candidate in self._router.explain(*asked).candidates:
            terms = [term.value for term in candidate.terms if term.unit == "ms"]
            if terms:
                ms[candidate.url] = sum(terms)
        self._explains = bool(ms)
        return ms

    def _begun(self, choice: "Choice", record: Record, body: Any) -> None:
        """Both choices are known: foretell hits, and keep the record until the request's end."""
        found = _core.prompt_blocks(body, _BLOCK) if isinstance(body, dict) else None
        if found is not None:
            ids = array("Q")
            ids.frombytes(found[0])
            record.prompt_tokens = found[1]
            record.hash_ids = ids[_PER_ID - 1 : found[1] // _BLOCK : _PER_ID].tolist()
            sides = ((self._host, record.host, "host"), (self._ours, record.ours, "our"))
            for index, url, who in sides:
                blocks, urls = index.match(ids, {url})
                hit = min(blocks * _BLOCK, found[1]) if url in urls else 0
                setattr(record, f"{who}_hit_tokens", hit)
                index.add(ids, url)
        if isinstance(body, dict):
            limits = (body.get(name) for name in _LIMITS)
            record.max_tokens = next(
                (n for n in limits if type(n) is int and 0 < n < 1 << 22), None
            )
        self._open[choice] = None
        if len(self._open) > _MAX_OPEN:
            next(iter(self._open)).over()

    def _over(self, choice: "Choice") -> None:
        self._open.pop(choice, None)
        if choice.record is not None:
            try:
                self.log.write(choice.record)
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        """Write what is known of requests that have not ended, and close the file."""
        for choice in list(self._open):
            choice.over()
        with suppress(OSError):
            self.log.close()


class Choice:
    """A request that the host routes, and where we would have sent it.

    Attributes:
        ours: Our choice.
        seconds: Time that it took to choose.
        record: What is known, from the host's choice on until it is written.
        output_tokens: Tokens of the answer, once the engine has reported them.
    """

    ours: str
    seconds: float

    __slots__ = (
        "_arrived",
        "_body",
        "_expected",
        "_first",
        "_gone",
        "_shadow",
        "ours",
        "output_tokens",
        "record",
        "seconds",
    )

    def __init__(
        self, shadow: Shadow, ours: str, seconds: float, expected: Mapping[str, float], body: Any
    ) -> None:
        self._shadow, self.ours, self.seconds = shadow, ours, seconds
        self._expected, self._body = expected, body
        self._arrived = time.time()
        self._first: float | None = None
        self._gone = False
        self.output_tokens: int | None = None
        self.record: Record | None = None

    def waits_for(self, shadow: Shadow | None) -> bool:
        """Whether it was made by that side, and the host's choice is not known yet."""
        return self._shadow is shadow and not self._gone

    def goes(self, host: str) -> None:
        """The host has chosen. Again, for a further attempt: no change."""
        if self._gone:
            return
        self._gone = True
        self.record = Record(
            time=self._arrived,
            strategy=self._shadow.strategy,
            host=host,
            ours=self.ours,
            host_latency_ms=self._expected.get(host),
            our_latency_ms=self._expected.get(self.ours),
        )
        body, self._body = self._body, None
        self._shadow._begun(self, self.record, body)

    def answered(self, timestamp: float) -> None:
        """The first token came back."""
        if self._first is None:
            self._first = timestamp

    def over(self, timestamp: float | None = None) -> None:
        """The request is over: written down, once.

        Args:
            timestamp: When it was answered to its end; None: it failed, or nobody knows.
        """
        record = self.record
        if record is None:
            return
        record.output_tokens = self.output_tokens
        if timestamp is not None and timestamp >= self._arrived:
            record.took_ms = 1e3 * (timestamp - self._arrived)
            if self._first is not None and self._arrived <= self._first <= timestamp:
                record.ttft_ms = 1e3 * (self._first - self._arrived)
        self._shadow._over(self)
        self.record = None


_living: WeakSet[Shadow] = WeakSet()


@atexit.register
def _close() -> None:
    for shadow in list(_living):
        shadow.close()
