"""One request of a fleet, from its choice to its end."""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from routecore.endpoints.health import Reason
from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.ranks import Rank, rank_of
from routecore.errors import RouteError
from routecore.fleet.reasons import reason_of
from routecore.hold import Go
from routecore.hold.queue import Sources
from routecore.interface import Endpoint
from routecore.routers.compiled import CompiledRouter


class Chooser(Protocol):
    """What a request needs of its fleet."""

    router: CompiledRouter
    monitor: RequestStatsMonitor
    _holds: bool

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that are chosen from."""
        ...

    def _sources(self) -> Sources: ...

    def _wait(
        self, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None
    ) -> tuple[dict[str, Any], str]: ...

    def _choose(
        self,
        endpoints: tuple[Endpoint, ...],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[str, str]: ...


def _on_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # where nobody has imported it, no loop runs
    return asyncio is not None and asyncio._get_running_loop() is not None


class FleetRequest:
    """One request, from its choice to its end.

    Leaving the block ends it: as served, or as failed where an exception passes through
    (cancellation is the client's doing and not held against the engine).

    Attributes:
        url: The endpoint to send it to; known inside the block.
        waited_s: Seconds that it waited for room, in a fleet with a hold.
        tried: Endpoints that failed it, in order.
    """

    def __init__(
        self, fleet: Chooser, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None
    ) -> None:
        self._fleet, self._body, self._headers = fleet, body, headers
        self._name: str | None = None
        self._answered = False
        self._status: int | None = None
        self._retry_after: float | None = None
        self.url: str = ""
        self.waited_s: float = 0.0
        self.tried: list[str] = []

    @property
    def target(self) -> Rank:
        """Where to send it, and with which headers: for endpoints that are data-parallel ranks."""
        return rank_of(self.url)

    def __repr__(self) -> str:
        return f"<FleetRequest to {self.url}>" if self.url else "<FleetRequest, not sent yet>"

    def __enter__(self) -> Self:
        fleet = self._unsent()
        if not fleet._holds:
            self.url, self._name = fleet._choose(fleet.endpoints, self._body, self._headers)
            return self
        if _on_event_loop():  # it would wait for ends that the loop cannot tell of meanwhile
            raise RouteError("a fleet with a hold: expected `async with` on an event loop")
        asked, name = fleet._wait(self._body, self._headers)
        self._goes(fleet.router.acquire_sync(fleet._sources, **asked), name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._fail(reason_of(error, answered=self._answered))
            return
        monitor, now = self._fleet.monitor, time.monotonic()
        monitor.on_request_complete(self.url, self._counted(), now, self._status, self._retry_after)

    async def __aenter__(self) -> Self:
        fleet = self._unsent()
        if not fleet._holds:
            return self.__enter__()
        asked, name = fleet._wait(self._body, self._headers)
        self._goes(await fleet.router.acquire(fleet._sources, **asked), name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _unsent(self) -> Chooser:
        if self._name is not None:
            raise RouteError("a request is sent once: make another with fleet.request(…)")
        return self._fleet

    def _goes(self, go: Go, name: str) -> None:
        self.url, self.waited_s, self._name = go.url, go.waited_s, name
        self._fleet.monitor.on_new_request(go.url, name, time.monotonic())

    def first_token(self) -> None:
        """The first token came back; later calls change nothing."""
        if not self._answered:
            self._answered = True
            monitor = self._fleet.monitor
            monitor.on_request_response(self.url, self._counted(), time.monotonic())

    def status(self, status: int, retry_after: str | float | None = None) -> None:
        """The status of the engine's answer; from 500 on, and 429, it counts as a failure.

        Args:
            status: The HTTP status.
            retry_after: The answer's Retry-After: seconds, as a number or as the header has them.
        """
        self._status = status
        try:
            seconds = math.nan if retry_after is None else float(retry_after)
        except ValueError:
            seconds = math.nan  # a date: the endpoint's back-off will do
        self._retry_after = seconds if math.isfinite(seconds) and seconds >= 0 else None

    def usage(
        self,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """The engine's own count of tokens, from `usage` of its answer; see the monitor."""
        self._fleet.monitor.on_usage(
            self.url, self._counted(), prompt_tokens, cached_tokens, completion_tokens
        )

    def retry(self, reason: Reason | BaseException = "unknown") -> str:
        """Fail it here and choose another endpoint, one that has not failed it yet.

        It does not wait again, hold or not.

        Args:
            reason: Why, or the exception that says so.

        Returns:
            The new `url`.

        Raises:
            RouteError: All endpoints have failed it, or it has answered already.
        """
        if self._answered:
            raise RouteError("a request that has answered cannot be sent to another endpoint")
        why = reason_of(reason) if isinstance(reason, BaseException) else reason
        self.tried.append(self.url)
        left = tuple(e for e in self._fleet.endpoints if e.url not in self.tried)
        self._fail(why)
        if not left:
            raise RouteError(f"all {len(self.tried)} endpoints failed the request")
        self._status = self._retry_after = None
        self.url, self._name = self._fleet._choose(left, self._body, self._headers)
        return self.url

    def _fail(self, reason: Reason) -> None:
        monitor = self._fleet.monitor
        monitor.on_request_failed(
            self.url, self._counted(), time.monotonic(), reason, self._retry_after
        )

    def _counted(self) -> str:
        if self._name is None:
            raise RouteError("not sent yet: use it as `with fleet.request(…) as request:`")
        return self._name
