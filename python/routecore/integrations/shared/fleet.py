"""The interchangeable endpoints behind one name in a host: their strategy and their load."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.stats import EndpointInfo
from routecore.endpoints.table import EndpointTable
from routecore.hold import Held, Hold, Rejected, RejectReason
from routecore.hold.queue import Source, Sources
from routecore.integrations.shared.engine_caches import Addresses, EngineCaches, engine_caches
from routecore.integrations.shared.log_throttle import LogThrottle
from routecore.integrations.shared.replicas import close_with, replicas
from routecore.integrations.shared.settings import Settings
from routecore.integrations.shared.shadow import Choice, MovedRequests, Shadow
from routecore.replicas import Replicas
from routecore.routers import CompiledRouter

WINDOW = 60.0  # seconds of the monitor's sliding window
_MAX_LISTS = 32  # as many as a router keeps; a cooldown or a locality makes a new one


class Asked(NamedTuple):
    """What of a request a router may read beside its body."""

    headers: Mapping[str, str]


class Counts(Protocol):
    """Where decisions are counted; `telemetry.Telemetry`, or the same in a host's registry."""

    def decided(self, seconds: float) -> None:
        """The strategy chose, in that time."""
        ...

    def shadowed(self, seconds: float) -> None:
        """The strategy chose beside the host, without effect."""
        ...

    def fell_back(self) -> None:
        """The strategy failed and the host chose."""
        ...

    def holds(self, hold: Hold) -> None:
        """Show who waits there."""
        ...

    def admitted(self, waited: float) -> None:
        """The strategy chose, once there was room: after so many seconds."""
        ...

    def rejected(self, reason: RejectReason) -> None:
        """The request was rejected, to come again later."""
        ...


class Fleet:
    """A strategy with a table and a monitor of its own, apart from the process's singletons.

    Errors inside the strategy are for the host to catch, and for `fault` to count and log.

    Attributes:
        monitor: What the strategy goes by.
        ends: Whom to tell of requests, by the host's choices.
        shadow: In shadow mode, what compares and records.
        moved: In shadow mode, `ends` by its own type.

    Args:
        settings: Strategy, parameters, mode.
        name: The deployment or model group, for the log.
        telemetry: Where decisions are counted.
        log: The host's logger.
        clock: Seconds, as of the times that the host reports to the monitor.

    Raises:
        RouteError: As `Settings.router`, or KV event settings are wrong.
    """

    settings: Settings
    name: str
    telemetry: Counts

    def __init__(
        self,
        settings: Settings,
        name: str,
        telemetry: Counts,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.name = settings, name
        self.caches: EngineCaches | None = engine_caches(settings, log)
        caches = {} if self.caches is None else self.caches.params()
        self.router: CompiledRouter = settings.router(**caches)
        limits = settings.limits()
        self.holds: bool = limits is not None and settings.mode == "active"
        if limits is not None:
            self.router.set_hold(limits)
        if self.holds:
            telemetry.holds(self.router.hold)
        self.table: EndpointTable = EndpointTable()
        # type.__call__ goes round the singleton metaclass, as in `Settings.router`.
        self.monitor: RequestStatsMonitor = cast(
            RequestStatsMonitor,
            type.__call__(
                RequestStatsMonitor,
                WINDOW,
                lease_timeout=settings.lease_timeout,
                table=self.table,
            ),
        )
        self.replicas: Replicas | None = replicas(settings, self.table, name, self.router)
        if self.replicas is not None:
            close_with(self, self.replicas)
        self.shadow: Shadow | None = None
        self.moved: MovedRequests | None = None
        if settings.mode == "shadow":
            self.shadow = Shadow(settings, settings.strategy, self.router, self.fault)
            self.moved = MovedRequests(self.monitor)
        self.ends: RequestStatsMonitor | MovedRequests = self.moved or self.monitor
        self.faults: int = 0
        self._log, self.telemetry, self._clock = log, telemetry, clock
        self._logs = LogThrottle()
        self._lists: dict[tuple[str, ...], tuple[EndpointInfo, ...]] = {}
        self._sources: dict[int, tuple[tuple[EndpointInfo, ...], Source]] = {}
        params = ", ".join(f"{key}={value!r}" for key, value in settings.params.items())
        log.info("routecore %s %r: %s(%s)", settings.mode, name, settings.strategy, params)

    def endpoints(self, urls: tuple[str, ...]) -> tuple[EndpointInfo, ...]:
        """The same tuple for the same URLs, which the router knows by identity."""
        found = self._lists.get(urls)
        if found is None:
            if len(self._lists) >= _MAX_LISTS:
                del self._lists[next(iter(self._lists))]
            found = self._lists[urls] = tuple(EndpointInfo(url=url) for url in urls)
        return found

    async def prepare(self, body: Mapping[str, Any] | None, addresses: Addresses) -> None:
        """What a choice by KV events needs before it; nothing without them. Never raises.

        Args:
            body: As `choose` will get it.
            addresses: Of all endpoints that there are now; called in a thread.
        """
        if self.caches is None:
            return
        try:
            self.caches.follow(addresses)
            await self.caches.prepare(body)
        except Exception as error:
            self.fault(error)

    def choose(
        self,
        endpoints: tuple[EndpointInfo, ...],
        headers: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> str:
        """The URL to send the request to; counts and times the decision."""
        start = time.perf_counter()
        stats = self.monitor.get_request_stats(self._clock())
        asked = None if headers is None else Asked(headers)
        url = self.router.route_request(endpoints, None, stats, asked, body)
        self.telemetry.decided(time.perf_counter() - start)
        return url

    def source(self, endpoints: tuple[EndpointInfo, ...]) -> Source:
        """What a request that waits asks for the state of these; the same for the same ones."""
        found = self._sources.get(id(endpoints))
        if found is None or found[0] is not endpoints:
            if len(self._sources) >= _MAX_LISTS:
                del self._sources[next(iter(self._sources))]
            now = partial(self._now, endpoints)
            found = self._sources[id(endpoints)] = (endpoints, now)
        return found[1]

    def _now(self, endpoints: tuple[EndpointInfo, ...]) -> Sources:
        return endpoints, None, self.monitor.get_request_stats(self._clock())

    async def acquire(
        self,
        endpoints: tuple[EndpointInfo, ...] | Source,
        headers: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> str:
        """`choose`, once there is room on the endpoint.

        Args:
            endpoints: Those that it may go to, or what says at each try which these are.
            headers: As of `choose`.
            body: As of `choose`.

        Raises:
            Rejected: The request may not wait, or not any longer.
        """
        asked = None if headers is None else Asked(headers)
        source = endpoints if callable(endpoints) else self.source(endpoints)
        try:
            go = await self.router.acquire(source, request=asked, request_json=body, ticket=False)
        except Rejected as full:
            self.telemetry.rejected(full.reason)
            raise
        self.telemetry.admitted(go.waited_s)
        return go.url

    def held(self) -> tuple[Held, ...]:
        """The requests that wait for room, oldest first, and what each waits for."""
        return self.router.hold.held() if self.holds else ()

    def compare(
        self,
        endpoints: tuple[EndpointInfo, ...],
        headers: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> Choice:
        """What we would choose in shadow mode, until we know where the host sends the request."""
        assert self.shadow is not None
        stats = self.monitor.get_request_stats(self._clock())
        asked = None if headers is None else Asked(headers)
        choice = self.shadow.choose((endpoints, None, stats, asked, body))
        self.telemetry.shadowed(choice.seconds)
        return choice

    def forget(self, url: str, *, learned: bool = False) -> None:
        """Forget what an endpoint's engine had in its cache; see `EndpointTable.forget`."""
        self.monitor.forget(url, learned=learned)
        self.router.forget(url)

    @property
    def hears_others(self) -> bool:
        """Whether other routers tell of their requests, and somebody is heard now."""
        return self.replicas is not None and bool(self.replicas.peers)

    def fault(self, error: Exception) -> None:
        """Our strategy failed and the host chose: counted, logged at most once a minute."""
        self.faults += 1
        self.telemetry.fell_back()
        if self._logs():
            self._log.warning(
                "routecore %r: the host chose, %d times so far, because %s failed: %s: %s",
                self.name,
                self.faults,
                self.settings.strategy,
                type(error).__name__,
                error,
            )
