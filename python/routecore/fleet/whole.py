"""Routing for those without a host: endpoints, strategy, load and clock in one object."""

import inspect
import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from routecore.endpoints import saved
from routecore.endpoints.health import HealthPolicy
from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.scraper import EngineStatsScraper
from routecore.endpoints.stats import EndpointInfo
from routecore.endpoints.table import EndpointTable
from routecore.errors import RouteError, unknown
from routecore.fleet.request import FleetRequest
from routecore.hold import Held, HoldLimits
from routecore.hold.queue import Sources
from routecore.interface import Endpoint
from routecore.replicas.keys import seed_of
from routecore.routers import ROUTERS
from routecore.routers.compiled import CompiledRouter
from routecore.routers.explanation import Explanation
from routecore.singleton import new_instance
from routecore.uncopied import Uncopied

if TYPE_CHECKING:
    from routecore.replicas import Channel, Replicas


class Fleet(Uncopied):
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
        replicas: What carries load between routers in front of the same engines, or its
            address: `redis://…`, `zmq://…`, `ray`; see `routecore.replicas`. None: it is alone.
        replicas_secret: Of all routers of the group: keeps the keys by which they name prompts
            unguessable for those who send requests.
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
        replicas: "Channel | str | None" = None,
        replicas_secret: str | None = None,
        hold: bool | HoldLimits = False,
    ) -> None:
        self.table: EndpointTable = EndpointTable()
        self._made_of = (strategy, dict(params or {}), hold)
        self._shared_seed = None if replicas is None else seed_of(replicas_secret)
        self.router: CompiledRouter = self._made_router(self._shared_seed)
        self._holds = hold is not False
        self.monitor: RequestStatsMonitor = new_instance(
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
        self.replicas: Replicas | None = self._beside(replicas)

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
    ) -> FleetRequest:
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

    def held(self) -> tuple[Held, ...]:
        """The requests that wait for room, oldest first, and what each waits for."""
        return self.router.hold.held() if self._holds else ()

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

    def save(self, path: str | Path) -> None:
        """Write what was learned to a file, so that a restart is warm: see `EndpointTable.save`.

        Raises:
            OSError: The file cannot be written; what was there is still there.
        """
        self.table.save(path, self.router)

    def load(self, path: str | Path) -> bool:
        """Take over what `save` wrote. Call it before the first request.

        A strategy that was given by its word is made anew, with the `hash_seed` of the file, so
        that what it knows of the engines' caches is of use.

        Returns:
            Whether there was such a file.

        Raises:
            RouteError: The file is damaged or of another version, or requests are in flight;
                nothing is changed then, and the fleet starts cold.
            OSError: The file cannot be read.
        """
        before, seed = self.router, saved.hash_seed(path)
        if seed is None:
            return False
        self.router = self._made_router(seed if self._shared_seed is None else self._shared_seed)
        try:
            return self.table.load(path, self.router)
        except BaseException:
            self.router = before
            raise

    def _made_router(self, hash_seed: int | None = None) -> CompiledRouter:
        strategy, params, hold = self._made_of
        if hash_seed is not None and isinstance(strategy, str):
            made = ROUTERS.get(strategy)
            if made is not None and "hash_seed" in inspect.signature(made.__init__).parameters:
                params = {"hash_seed": hash_seed, **params}
        router = _router(strategy, params)
        if hold is not False:
            router.set_hold(hold if isinstance(hold, HoldLimits) else HoldLimits())
        return router

    def _beside(self, replicas: "Channel | str | None") -> "Replicas | None":
        if replicas is None:
            return None
        from routecore.replicas import Replicas

        for endpoint in self._endpoints:  # so that the first choice knows what is there
            self.table.add(endpoint.url)
        return Replicas(replicas, table=self.table, router=self.router)

    def close(self) -> None:
        """End the threads that scrape engines and hear other routers, if there are any."""
        if self.replicas is not None:
            self.replicas.close()
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


def _router(strategy: "str | CompiledRouter", params: Mapping[str, Any]) -> CompiledRouter:
    if not isinstance(strategy, str):
        if params:
            raise RouteError("params: only a strategy given by its word takes parameters here")
        return strategy
    kind = ROUTERS.get(strategy)
    if kind is None:
        raise RouteError(f"strategy: unknown {unknown(strategy, ROUTERS)}")
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in params:
        if name not in known:
            raise RouteError(f"{strategy} takes no parameter {unknown(name, known)}")
    return new_instance(kind, **params)
