"""A small ASGI gateway that calls router and monitor as production-stack does."""

import asyncio
import contextlib
import inspect
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from routecore.endpoints.health import Reason
from routecore.endpoints.ranks import rank_of
from routecore.endpoints.stats import EndpointInfo
from routecore.hold import Go, Held, Rejected


class Gateway:
    """Routes `/v1/...` POSTs to endpoints; `app` is its ASGI application.

    Router, monitor and engine stats may be replaced between requests.

    Args:
        endpoints: Where requests may go.
        session: Client used towards the engines.
        hold: Requests wait until the endpoint chosen for them has room in its KV cache.
    """

    endpoints: list[EndpointInfo]
    session: aiohttp.ClientSession
    hold: bool

    def __init__(
        self,
        endpoints: list[EndpointInfo],
        session: aiohttp.ClientSession,
        *,
        hold: bool = False,
    ) -> None:
        self.endpoints, self.session, self.hold = endpoints, session, hold
        self.router: Any = None
        self.monitor: Any = None
        self._sources: Callable[[], tuple[Any, Any, Any]]
        self.decisions_us: list[float] = []
        # Prompt tokens that an endpoint holds by its own events, where somebody listens to them.
        self.held: Callable[[str, dict[str, Any]], int] | None = None
        self.in_flight: dict[str, int] = {endpoint.url: 0 for endpoint in endpoints}
        self.app: Starlette = Starlette(
            routes=[Route("/v1/{path:path}", self._forward, methods=["POST"])]
        )

    def use(self, router: Any, monitor: Any, engine_stats: Callable[[], Mapping[str, Any]]) -> None:
        """Go on with another router, its monitor and its source of engine stats."""
        self.router, self.monitor = router, monitor
        # Those who wait when another router comes go on with what they began with.
        self._sources = lambda: (
            self.endpoints,
            engine_stats(),
            monitor.get_request_stats(time.time()),
        )
        self.decisions_us = []
        self.in_flight = dict.fromkeys(self.in_flight, 0)

    def held_requests(self) -> tuple[Held, ...]:
        """The requests that wait for room, oldest first, and what each waits for."""
        found: tuple[Held, ...] = self.router.hold.held() if self.hold else ()
        return found

    def name(self, at: int) -> str:
        """What a reader calls the endpoint of that number."""
        addresses = [rank_of(endpoint.url) for endpoint in self.endpoints]
        engines = list(dict.fromkeys(one.address for one in addresses))
        engine, rank = engines.index(addresses[at].address), addresses[at].rank
        return f"engine {engine}" + ("" if rank is None else f", rank {rank}")

    async def _forward(self, request: Request) -> Response:
        raw = await request.body()
        try:
            body = json.loads(raw)
        except ValueError as error:
            return _error(400, f"body is no JSON: {error}")
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        try:
            url = await (self._place if self.hold else self._choose)(request, body, request_id)
        except Rejected as full:
            return _error(full.status, str(full), {"retry-after": f"{full.retry_after_s:.0f}"})
        except ValueError as error:
            return _error(503, str(error))
        headers = {"x-endpoint": url}
        if self.held is not None:
            headers["x-kv-held"] = str(self.held(url, body))
        call = _Call(self, url, request_id)
        to = rank_of(url)
        try:
            upstream = await self.session.post(
                to.address + request.url.path,
                data=raw,
                headers={"content-type": "application/json", **to.headers},
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            call.fail(_reason(error))
            return _error(502, f"{url}: {error}")
        except BaseException:
            call.fail("client")
            raise
        if upstream.status >= 500:
            upstream.close()
            call.answered(upstream.status, upstream.headers.get("retry-after"))
            return _error(502, f"{url}: answered {upstream.status}")
        return _Relay(
            call,
            upstream,
            status_code=upstream.status,
            media_type=upstream.content_type,
            headers=headers,
        )

    async def _choose(self, request: Request, body: Any, _: str) -> str:
        """Where the request goes, at once."""
        sources = self._sources()
        start = time.perf_counter()
        url = self.router.route_request(*sources, request, body)
        if inspect.isawaitable(url):
            url = await url
        self.decisions_us.append((time.perf_counter() - start) * 1e6)
        return str(url)

    async def _place(self, request: Request, body: Any, request_id: str) -> str:
        """Where the request goes, once there is room. Its place goes with its client."""
        this = asyncio.current_task()
        # The body is read: all that can come is that the client leaves.
        leaving = asyncio.ensure_future(request.receive())
        leaving.add_done_callback(lambda left: left.cancelled() or (this and this.cancel()))
        start = time.perf_counter()
        try:
            go: Go = await self.router.acquire(
                self._sources, request=request, request_json=body, request_id=request_id
            )
        finally:
            leaving.cancel()
        if not go.waited_s:  # else it is the wait that was timed
            self.decisions_us.append((time.perf_counter() - start) * 1e6)
        return go.url


class _Call:
    """One request towards one endpoint; its load ends exactly once."""

    def __init__(self, gateway: Gateway, url: str, request_id: str) -> None:
        self._gateway, self._url, self._id = gateway, url, request_id
        self._monitor, self._load = gateway.monitor, gateway.in_flight
        self._open = True
        self._load[url] += 1
        self._monitor.on_new_request(url, request_id, time.time())

    def answered(self, status: int, retry_after: str | None = None) -> None:
        """The answer is complete; of two ends the first counts."""
        if self._close():
            seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
            self._monitor.on_request_complete(self._url, self._id, time.time(), status, seconds)

    def fail(self, reason: Reason) -> None:
        """There is no answer, or only a part; of two ends the first counts."""
        if self._close():
            self._monitor.on_request_failed(self._url, self._id, time.time(), reason)

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        self._load[self._url] -= was_open
        return was_open

    def _learn(self, used: dict[str, Any]) -> None:
        cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens")
        self._monitor.on_usage(
            self._url, self._id, used.get("prompt_tokens"), cached, used.get("completion_tokens")
        )

    async def relay(self, upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        first = True
        tail = b""
        try:
            async for piece in upstream.content.iter_any():
                if first:
                    first = False
                    self._monitor.on_request_response(self._url, self._id, time.time())
                tail = (tail + piece)[-2048:]
                yield piece
            self._learn(last_usage(tail))
            self.answered(upstream.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.fail(_reason(error))
            raise
        finally:
            self.fail("client")
            upstream.close()


class _Relay(StreamingResponse):
    """The engine's answer on its way; a client that leaves before its start ends the call too."""

    def __init__(self, call: _Call, upstream: aiohttp.ClientResponse, **options: Any) -> None:
        super().__init__(call.relay(upstream), **options)
        self._call, self._upstream = call, upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.fail("client")
            self._upstream.close()


def _reason(error: Exception) -> Reason:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    return "timeout" if isinstance(error, TimeoutError) else "broken"


def last_usage(tail: bytes) -> dict[str, Any]:
    """The usage object in the end of an event stream; empty if there is none."""
    for line in reversed(tail.decode(errors="replace").splitlines()):
        if line.startswith("data: {"):
            with contextlib.suppress(ValueError):
                return json.loads(line[6:]).get("usage") or {}
    return {}


def _error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": reason, "code": status}}, status, headers)
