"""A request's place on an endpoint."""

import time
from types import TracebackType
from typing import Self

from routecore import _core
from routecore.endpoints.health import Reason, tell
from routecore.hold.ends import ended


class Ticket:
    """A request's place on an endpoint, from the choice to its end.

    Report the first token and the end to it, and it passes both on to the monitor. It ends once:
    reports after the end change nothing. A host that reports the request to the monitor itself,
    under the same id, need not touch it. As a context manager it fails what was not done.

    Attributes:
        url: Where the request goes.
        request_id: Its id in the monitor.
        waited_s: Seconds that it waited for its place.
    """

    request_id: str
    url: str
    waited_s: float

    __slots__ = ("_offset", "_table", "request_id", "url", "waited_s")

    def __init__(
        self, url: str, request_id: str, waited_s: float, table: _core.Table, time_s: float
    ) -> None:
        self.url, self.request_id, self.waited_s = url, request_id, waited_s
        self._table: _core.Table | None = table
        # The monitor's clock is the host's: whatever it is, it goes on as ours does.
        self._offset = time_s - time.monotonic()

    def first_token(self, timestamp: float | None = None) -> None:
        """The first token came back."""
        if self._table is not None:
            news = self._table.first_token(self.url, self.request_id, self._when(timestamp))
            if news is not None:
                tell(news)

    def done(
        self,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
        *,
        timestamp: float | None = None,
    ) -> None:
        """It was served to its end; the token counts are those of the answer's `usage`."""
        table = self._table
        counts = (prompt_tokens, cached_tokens, completion_tokens)
        try:
            if table is not None and any(count is not None for count in counts):
                table.usage(self.url, self.request_id, *counts)
        finally:
            self._end(timestamp, None, None)

    def fail(
        self,
        reason: Reason = "unknown",
        *,
        retry_after: float | None = None,
        timestamp: float | None = None,
    ) -> None:
        """It failed, or its client left ("client"); see `RequestStatsMonitor.on_request_failed`."""
        self._end(timestamp, reason, retry_after)

    def _end(
        self, timestamp: float | None, reason: Reason | None, retry_after: float | None
    ) -> None:
        table, self._table = self._table, None
        if table is not None:
            when = self._when(timestamp)
            news = table.end(self.url, self.request_id, when, None, reason, retry_after)
            if news is not None:
                tell(news)
            ended()

    def _when(self, timestamp: float | None) -> float:
        return self._offset + time.monotonic() if timestamp is None else timestamp

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, if that was not reported: as served, or as failed with an exception."""
        if kind is None:
            self.done()
        else:
            names = {cls.__name__ for cls in kind.__mro__}
            self.fail("client" if names & {"CancelledError", "GeneratorExit"} else "unknown")
