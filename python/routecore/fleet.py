"""Routing for those without a host: endpoints, strategy, load and clock in one object."""

import itertools
import math
import sys
import time
from collections.abc import Iterable, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from routecore.endpoints.health import HealthPolicy, Reason
from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.scraper import EngineStatsScraper
from routecore.endpoints.stats import EndpointInfo
from routecore.endpoints.table import EndpointTable
from routecore.errors import RouteError
from routecore.hold import Go, HoldLimits
from routecore.hold.queue import Sources
from routecore.interface import Endpoint
from routecore.routers import ROUTERS
from routecore.routers.compiled import CompiledRouter
from routecore.routers.explanation import Explanation
from routecore.singleton import new_instance

_CONNECT = frozenset({"ConnectionRefusedError", "gaierror", "SSLError", "ConnectError"})
_CONNECT |= {"ClientConnectorError", "ConnectTimeout", "ServerConnectionError"}
_TIMEOUT = frozenset({"TimeoutError", "TimeoutException", "ServerTimeoutError"})
_CLIENT = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt", "ClientDisconnect"})


def reason_of(error: BaseException, *, answered: bool = False) -> Reason:
    """What an exception says of the engine, by its class or that of the library it comes from.

    Args:
        error: As raised by `socket`, asyncio, httpx, aiohttp or another client.
        answered: Whether a first token had come back.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _CLIENT:
        return "client"
    if names & _CONNECT:
        return "connect"
    if names & _TIMEOUT:
        return "timeout"
    return "broken" if answered else "unknown"


class Fleet:
    """The engines behind a router of your own, and the choice between them.

    It owns what belongs together: the strategy, the request monitor, the table of stats, the
    clock, and on request the scraper. Each fleet is independent of all others.

    Args:
        endpoints: URLs, or endpoint objects with `.url`.
        strategy: A word of `routecore strategies`, or a router of your own.
        params: The strategy's parameters.
        window: Seconds of the sliding window behind the request stats.
        lease_timeout: Seconds after which a request that never ended leaves the load.
        health: When endpoints that fail are left alone; the defaults if left out.
        scrape_every: Seconds between two scrapes of each engine's `/metrics`; None for never.
        hold: Whether requests wait until the endpoint chosen for them has room in its KV cache, or
            the bounds of their waiting.

    Raises:
        RouteError: No endpoints, an unknown strategy, parameters that it does not take, or a bound
            that is out of range.
    """

    def __init__(
        self,
        endpoints: Iterable[str | Endpoint],
        strategy: "str | CompiledRouter" = "expected_latency",
        *,
        params: Mapping[str, Any] | None = None,
        window: float = 60.0,
        lease_timeout: float = 600.0,
        health: HealthPolicy | None = None,
        scrape_every: float | None = None,
        hold: bool | HoldLimits = False,
    ) -> None:
        self.table = EndpointTable()
        self.router = _router(strategy, params or {})
        self._holds = hold is not False
        if self._holds:
            self.router.set_hold(hold if isinstance(hold, HoldLimits) else HoldLimits())
        self.monitor = new_instance(
            RequestStatsMonitor,
            window,
            lease_timeout=lease_timeout,
            table=self.table,
            health=health,
        )
        self._numbers = itertools.count()
        self._scraper: EngineStatsScraper | None = None
        self.endpoints = endpoints
        if scrape_every is not None:
            self._scraper = new_instance(
                EngineStatsScraper, self._endpoints, scrape_every, table=self.table
            )
            self._scraper.start()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that are chosen from; assign others when the fleet changes."""
        return self._endpoints

    @endpoints.setter
    def endpoints(self, endpoints: Iterable[str | Endpoint]) -> None:
        made = tuple(EndpointInfo(url=e) if isinstance(e, str) else e for e in endpoints)
        if not made:
            raise RouteError("Fleet: expected at least one endpoint")
        self._endpoints = made

    def request(
        self, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> "FleetRequest":
        """A request to send: a context manager, for `with` and `async with` alike.

        In a fleet with a hold, entering it waits until there is room: `async with` on an event
        loop, `with` in a thread. It raises `Rejected` where a bound of the hold is reached.

        Args:
            body: The parsed body, as it will be sent to the engine.
            headers: Its headers, for strategies that read a session from them.
        """
        return FleetRequest(self, body, headers)

    def explain(
        self, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Explanation:
        """Where such a request would go now, and why; changes nothing."""
        return self.router.explain(*self._arguments(self._endpoints, body, headers))

    def forget(self, url: str | None = None, *, learned: bool = False) -> None:
        """Forget what an endpoint's engine had in its cache, or all engines had.

        Call it where you know that it is lost: after new weights, `/reset_prefix_cache`, a
        restart. Requests in flight stay.

        Args:
            url: The endpoint; all of them if left out. One that is not known changes nothing.
            learned: Also forget what was learned of it: its speed, how long its cache lasts, that
                it failed. For another engine or model behind the same URL.
        """
        self.monitor.forget(url, learned=learned)
        forget = getattr(self.router, "forget", None)  # a router of one's own need not have it
        if forget is not None:
            forget(url)

    def close(self) -> None:
        """End the scraper's thread, if there is one."""
        if self._scraper is not None:
            self._scraper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Fleet {self.router.strategy}, {len(self._endpoints)} endpoints>"

    def _arguments(
        self,
        endpoints: tuple[Endpoint, ...],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[Any, ...]:
        stats = self.monitor.get_request_stats(time.monotonic())
        engines = self._scraper.get_engine_stats() if self._scraper else None
        request = None if headers is None else SimpleNamespace(headers=headers)
        return endpoints, engines, stats, request, body

    def _sources(self) -> Sources:
        """What a request that waits goes by, at each try."""
        endpoints, engines, stats, *_ = self._arguments(self._endpoints, None, None)
        return endpoints, engines, stats

    def _wait(
        self, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None
    ) -> tuple[dict[str, Any], str]:
        """How to ask the router for a place, and the id under which it is counted."""
        name = str(next(self._numbers))
        request = None if headers is None else SimpleNamespace(headers=headers)
        return {"request": request, "request_json": body, "request_id": name}, name

    def _choose(
        self,
        endpoints: tuple[Endpoint, ...],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[str, str]:
        """The URL, and the id under which the request is counted there."""
        url = self.router.route_request(*self._arguments(endpoints, body, headers))
        name = str(next(self._numbers))
        self.monitor.on_new_request(url, name, time.monotonic())
        return url, name


def _on_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # where nobody has imported it, no loop runs
    return asyncio is not None and asyncio._get_running_loop() is not None


def _router(strategy: "str | CompiledRouter", params: Mapping[str, Any]) -> CompiledRouter:
    if not isinstance(strategy, str):
        if params:
            raise RouteError("params: only a strategy given by its word takes parameters here")
        return strategy
    kind = ROUTERS.get(strategy)
    if kind is None:
        raise RouteError(f"unknown strategy {strategy!r}; valid: {', '.join(ROUTERS)}")
    try:
        return new_instance(kind, **params)
    except TypeError as error:
        raise RouteError(f"{strategy}: {error}") from None


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
        self, fleet: Fleet, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None
    ) -> None:
        self._fleet, self._body, self._headers = fleet, body, headers
        self._name: str | None = None
        self._answered = False
        self._status: int | None = None
        self._retry_after: float | None = None
        self.url = ""
        self.waited_s = 0.0
        self.tried: list[str] = []

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

    def _unsent(self) -> Fleet:
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
