"""A user's own Python router in a compiled strategy's place, called as a live host calls it."""

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from routecore.endpoints.stats import EndpointInfo, EngineStats
from routecore.endpoints.table import EndpointTable
from routecore.endpoints.views import RequestStatsView
from routecore.errors import RouteError
from routecore.replay.columns import Trace


def url_of(endpoint: int) -> str:
    """The URL under which routers know an endpoint of a replay."""
    return f"http://engine-{endpoint:05}"


class ReplayRequest:
    """What a router may read of a request: headers, and a body made from the prompt's blocks.

    The text stands for the prompt: equal blocks have equal text, 4 characters a token.
    """

    def __init__(
        self, number: int, tokens: int, blocks: bytes, block: int, headers: Mapping[str, str]
    ) -> None:
        self.headers: dict[str, str] = dict(headers)
        self._number, self._tokens = number, tokens
        self._blocks, self._block = blocks, block

    @property
    def _body(self) -> bytes:
        """The body, as a host has cached it; made when it is read."""
        ids = np.frombuffer(self._blocks, dtype=np.uint32)
        if len(ids):
            text = "".join(f"{block:08x}" * (self._block // 2) for block in ids.tolist())[
                : 4 * self._tokens
            ]
        else:
            text = (f"{self._number:08x}" * (self._tokens // 2 + 1))[: 4 * self._tokens]
        return msgspec.json.encode({"model": "replay", "prompt": text})


class PythonGateway:
    """Calls `route_request` per request, and keeps the stats that the router is handed."""

    def __init__(self, router: Any, trace: Trace, endpoints: int) -> None:
        self._router, self._block = router, trace.block
        self._infos = [EndpointInfo(url=url_of(at)) for at in range(endpoints)]
        self._numbers = {info.url: at for at, info in enumerate(self._infos)}
        self._there = [True] * endpoints
        self._table = EndpointTable().core
        self._stats = {info.url: EngineStats() for info in self._infos}
        self._session_header = getattr(router, "session_key", None) or "x-session-id"
        self._gather()

    def _gather(self) -> None:
        there = zip(self._infos, self._there, strict=True)
        self._endpoints = [info for info, is_there in there if is_there]

    def choose(
        self, now: float, number: int, tokens: int, session: int | None, blocks: bytes
    ) -> int | None:
        """The router's choice for a request; None where there is no endpoint."""
        if not self._endpoints:
            return None
        headers = {"x-request-id": str(number)}
        if session is not None:
            headers[self._session_header] = f"session-{session}"
        request = ReplayRequest(number, tokens, blocks, self._block, headers)
        self._table.advance(now * 1e-3)
        stats = RequestStatsView(self._table, now * 1e-3)
        url = self._router.route_request(self._endpoints, self._stats, stats, request)
        if inspect.isawaitable(url):
            if inspect.iscoroutine(url):
                url.close()  # nobody will await it, which Python would complain of
            raise RouteError("route_request: expected a URL, got an awaitable; make it synchronous")
        at = self._numbers.get(url)
        if at is None:
            raise RouteError(f"route_request: expected the URL of an endpoint, got {url!r}")
        self._table.sent(url, str(number), now * 1e-3)
        return at

    def on_first_token(self, now: float, number: int, endpoint: int) -> None:
        """The first token came back."""
        self._table.first_token(self._infos[endpoint].url, str(number), now * 1e-3)

    def on_end(self, now: float, number: int, endpoint: int, ok: bool) -> None:
        """The request ended, or failed."""
        self._table.end(
            self._infos[endpoint].url, str(number), now * 1e-3, None, None if ok else "unknown"
        )

    def on_stats(
        self,
        now: float,
        endpoint: int,
        running: int,
        waiting: int,
        kv_usage: float,
        hit_rate: float,
    ) -> None:
        """A scrape arrived."""
        self._stats[self._infos[endpoint].url] = EngineStats(
            num_running_requests=running,
            num_queuing_requests=waiting,
            gpu_cache_usage_perc=kv_usage,
            gpu_prefix_cache_hit_rate=0.0 if hit_rate != hit_rate else hit_rate,
        )

    def on_down(self, now: float, endpoint: int) -> None:
        """An endpoint is gone."""
        self._there[endpoint] = False
        self._table.remove(self._infos[endpoint].url)
        self._gather()

    def on_up(self, now: float, endpoint: int) -> None:
        """An endpoint joined."""
        self._there[endpoint] = True
        self._stats[self._infos[endpoint].url] = EngineStats()
        self._gather()
