"""Where a request goes: the strategy, what it needs before, and who is counted where."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.scraper import EngineStatsScraper
from routecore.endpoints.stats import EndpointInfo
from routecore.errors import RouteError
from routecore.hold import Held, Rejected
from routecore.integrations.envoy.endpoints.pool import Pool
from routecore.integrations.envoy.settings import Settings
from routecore.integrations.shared.fleet import Asked, Fleet
from routecore.integrations.shared.shadow import Choice
from routecore.integrations.shared.telemetry import Telemetry, watch
from routecore.requests.body import parsed
from routecore.routers import CompiledRouter

_log = logging.getLogger("routecore.picker")

Candidates = tuple[EndpointInfo, ...]


class Refused(Exception):
    """The request is answered by us.

    Attributes:
        status: HTTP status of the answer.
        reason: A word for it.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, reason: str, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status: int = status
        self.reason: str = reason
        self.headers: dict[str, str] = {
            name.replace("_", "-"): value for name, value in headers.items()
        }


class Pick(NamedTuple):
    """A choice that counts as load until its end is reported.

    Attributes:
        url: The endpoint.
        named: What the gateway receives: addresses, the chosen one first; empty in shadow mode,
            where the gateway chooses.
        choice: In shadow mode what we would have chosen; nothing counts until it learns where
            the gateway sent the request.
    """

    url: str
    named: str
    choice: Choice | None = None


class Picker:
    """One strategy over the endpoints of a pool.

    Args:
        settings: Strategy, parameters, hold and so on.

    Raises:
        RouteError: A setting or parameter is refused.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry: Telemetry = Telemetry("envoy", settings.strategy)
        self.fleet: Fleet = Fleet(settings, "picker", self.telemetry, _log)
        self.monitor: RequestStatsMonitor = self.fleet.monitor
        self.router: CompiledRouter = self.fleet.router
        watch(self.monitor)
        self.pool: Pool = Pool(self.fleet.table.remove)
        self.pool.on_change(self._add_rows)
        self.reads_headers: bool = bool(self.router.session_key)
        if settings.hold:
            self.router.set_hold(settings.limits())
            self.telemetry.holds(self.router.hold)
        self.scraper: EngineStatsScraper | None = None
        if settings.scrape_every:
            # type.__call__ goes round the singleton metaclass, as for the monitor.
            made: EngineStatsScraper = type.__call__(
                EngineStatsScraper,
                self.pool.urls,
                settings.scrape_every,
                table=self.fleet.table,
                path=settings.metrics_path,
            )
            self.scraper = made

    def start(self) -> None:
        """Scrape from now on."""
        if self.scraper is not None:
            self.scraper.start()

    def close(self) -> None:
        """Scrape, and hear KV events and other pickers, no longer."""
        if self.scraper is not None:
            self.scraper.close()
        if self.fleet.caches is not None:
            self.fleet.caches.close()
        if self.fleet.shadow is not None:
            self.fleet.shadow.close()
        if self.fleet.replicas is not None:
            self.fleet.replicas.close()

    def _add_rows(self) -> None:
        """So that the first choice knows what other pickers have there."""
        if self.fleet.replicas is not None:
            for url in self.pool.addresses():
                self.fleet.table.add(url)

    async def pick(
        self,
        request_id: str,
        hint: tuple[str, ...] | None,
        headers: Mapping[str, str] | None,
        content: bytes,
    ) -> Pick:
        """Choose, and count the request there.

        Args:
            request_id: Under which it is counted.
            hint: The gateway's subset of endpoints.
            headers: The request's, where `reads_headers`.
            content: Its body, as far as it is there.

        Raises:
            Refused: It is answered by us: there is no endpoint, or too many wait.
        """
        candidates = self._candidates(hint)
        body = parsed(content) if content else None
        if self.fleet.caches is not None:
            await self.fleet.prepare(body, self.pool.addresses)
            candidates = self._candidates(hint)  # others by now, perhaps
        asked = None if headers is None else Asked(headers)
        if self.settings.hold:
            return await self._wait(request_id, hint, asked, body)
        sources = self._sources(candidates)
        if self.fleet.shadow is not None:
            choice = self.fleet.shadow.choose((*sources, asked, body))
            self.telemetry.shadowed(choice.seconds)
            return Pick(choice.ours, "", choice)
        start = time.perf_counter()
        try:
            urls = self.router.route_ranked(
                *sources, asked, body, fallbacks=self.settings.fallbacks
            )
        except Exception as error:
            self.fleet.fault(error)
            urls = [random.choice(candidates).url]
        else:
            self.telemetry.decided(time.perf_counter() - start)
        self.monitor.on_new_request(urls[0], request_id, time.time())
        return Pick(urls[0], ",".join(map(self.pool.address, urls)))

    async def _wait(
        self, request_id: str, hint: tuple[str, ...] | None, asked: Any, body: Any
    ) -> Pick:
        """`pick`, once the endpoint that is chosen has room."""

        def sources() -> tuple[Any, Any, Any]:
            return self._sources(self._candidates(hint))

        try:
            go = await self.router.acquire(
                sources, request=asked, request_json=body, request_id=request_id
            )
        except Rejected as full:
            self.telemetry.rejected(full.reason)
            after = f"{full.retry_after_s:.0f}"
            raise Refused(
                full.status, f"hold_{full.reason}", str(full), retry_after=after
            ) from None
        except RouteError as error:
            raise Refused(503, "no_endpoint", str(error)) from None
        self.telemetry.admitted(go.waited_s)
        self.monitor.on_new_request(go.url, request_id, time.time())
        urls = [go.url]
        with suppress(Refused, RouteError):  # all have left meanwhile
            urls = self.router.route_ranked(
                *sources(), asked, body, fallbacks=self.settings.fallbacks, chosen=go.url
            )
        return Pick(go.url, ",".join(map(self.pool.address, urls)))

    async def held(self) -> list[Held]:
        """The 64 oldest requests that wait for room, and what each waits for.

        Each is a choice anew: between two, other requests get their turn.
        """
        found = []
        for one in self.router.hold.looks():
            found.append(one)
            await asyncio.sleep(0)
        return found

    def _sources(self, candidates: Candidates) -> tuple[Any, Any, Any]:
        engines = None if self.scraper is None else self.scraper.get_engine_stats()
        return candidates, engines, self.monitor.get_request_stats(time.time())

    def _candidates(self, hint: tuple[str, ...] | None) -> Candidates:
        found = self.pool.candidates(hint)
        if found:
            return found
        if hint is not None:
            text = f"none of the {len(hint)} endpoints that the gateway allows is ready"
        elif not self.pool.synced:
            text = "the endpoints are not known yet"
        else:
            text = f"none of {len(self.pool)} endpoints is ready"
        raise Refused(503, "no_endpoint", text)
