"""A small gateway: it asks a router, tells the monitor, and passes bytes on."""

import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from routecore.errors import RouteError
from routecore.interface import RoutingInterface
from routecore.monitor import RequestStatsMonitor
from routecore.stats import EndpointInfo


class Attempt:
    """One request on its way; reports each event to the monitor once."""

    def __init__(self, gateway: "Gateway", url: str, request_id: str) -> None:
        self.gateway, self.url, self.id = gateway, url, request_id
        self.first = self.ended = False
        gateway.in_flight[url] += 1
        gateway.monitor.on_new_request(url, request_id, time.time())

    def chunk(self) -> None:
        """Bytes came back."""
        if not self.first:
            self.first = True
            self.gateway.monitor.on_request_response(self.url, self.id, time.time())

    def end(self, *, served: bool) -> None:
        """Served or failed; later calls change nothing."""
        if self.ended:
            return
        self.ended = True
        self.gateway.in_flight[self.url] -= 1
        monitor = self.gateway.monitor
        report = monitor.on_request_complete if served else monitor.on_request_failed
        report(self.url, self.id, time.time())


class Relay(StreamingResponse):
    """Passes the engine's answer on; whatever happens, the request ends in the monitor."""

    def __init__(self, upstream: aiohttp.ClientResponse, attempt: Attempt) -> None:
        super().__init__(
            self._chunks(upstream, attempt),
            status_code=upstream.status,
            media_type=upstream.content_type,
        )
        self.upstream, self.attempt = upstream, attempt

    @staticmethod
    async def _chunks(upstream: aiohttp.ClientResponse, attempt: Attempt) -> AsyncIterator[bytes]:
        async for chunk in upstream.content.iter_any():
            attempt.chunk()
            yield chunk
        attempt.end(served=upstream.status < 400)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.attempt.end(served=False)
            self.upstream.close()


class Gateway:
    """Serves `app`; set `router` before the first request."""

    def __init__(
        self,
        endpoints: list[EndpointInfo],
        monitor: RequestStatsMonitor,
        session: aiohttp.ClientSession,
    ) -> None:
        self.endpoints, self.monitor, self.session = endpoints, monitor, session
        self.router: RoutingInterface | None = None
        self.in_flight: Counter[str] = Counter()
        self.decisions: list[float] = []
        self._ids = itertools.count()
        paths = ("/v1/chat/completions", "/v1/completions")
        self.app = Starlette(routes=[Route(p, self._proxy, methods=["POST"]) for p in paths])

    def _choose(self, request: Request, body: Any) -> str:
        if self.router is None:
            raise RouteError("the gateway has no router yet")
        start = time.perf_counter()
        stats = self.monitor.get_request_stats(time.time())
        url: str = self.router.route_request(self.endpoints, {}, stats, request, body)
        self.decisions.append((time.perf_counter() - start) * 1e6)
        return url

    async def _proxy(self, request: Request) -> Response:
        raw = await request.body()
        try:
            body = json.loads(raw)
        except ValueError as error:
            return JSONResponse({"error": {"message": f"body is not JSON: {error}"}}, 400)
        try:
            url = self._choose(request, body)
        except RouteError as error:
            return JSONResponse({"error": {"message": str(error)}}, 503)
        attempt = Attempt(self, url, f"demo-{next(self._ids)}")
        handed_on = False
        try:
            headers = {"content-type": "application/json"}
            upstream = await self.session.post(url + request.url.path, data=raw, headers=headers)
            if upstream.status < 500:
                handed_on = True
                return Relay(upstream, attempt)
            upstream.close()
            return JSONResponse({"error": {"message": f"engine: {upstream.status}"}}, 502)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return JSONResponse({"error": {"message": f"engine: {error}"}}, 502)
        finally:
            if not handed_on:
                attempt.end(served=False)
