"""The host's two routers for engines that only prefill or only decode."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from routecore.integrations.production_stack import host
from routecore.integrations.production_stack.request_lifecycle import Attempt, current, follow
from routecore.integrations.production_stack.routers import Routed
from routecore.routers.prefill_decode import asks_prefill

_logic: Any = host.routing_logic


class DisaggregatedPrefillRouter(Routed, _logic.DisaggregatedPrefillRouter):
    """Either half of a pair, where the host asks: its JSON handler keeps clients of its own.

    Args:
        prefill_model_labels: Labels of the endpoints that prefill.
        decode_model_labels: Labels of the endpoints that decode.
    """

    logic = "disaggregated_prefill"

    def __init__(
        self,
        prefill_model_labels: list[str] | None = None,
        decode_model_labels: list[str] | None = None,
    ) -> None:
        super(Routed, self).__init__(prefill_model_labels or [], decode_model_labels or [])
        self._begin()

    def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """A prefill endpoint for a body with `max_tokens` 1, else a decode endpoint.

        Raises:
            RouteError: There are no endpoints.
        """
        if self.decision.shadow is not None:
            url: str = super().route_request(
                endpoints, engine_stats, request_stats, request, request_json
            )
            return url
        prefills = asks_prefill(request_json)
        labels = self.prefill_model_labels if prefills else self.decode_model_labels
        # Without an endpoint of that half any answers better than none.
        half = [e for e in endpoints if e.model_label in labels] or endpoints
        return self.decision.choose(
            half, engine_stats, request_stats, request, request_json, _half(self, prefills)
        )


class DisaggregatedPrefillOrchestratedRouter(
    Routed,
    _logic.DisaggregatedPrefillOrchestratedRouter,
):
    """The pair that the host's own orchestration asks for, and its load, which the host omits.

    Args:
        prefill_model_labels: Labels of the endpoints that prefill.
        decode_model_labels: Labels of the endpoints that decode.
    """

    logic = "disaggregated_prefill_orchestrated"
    _serial = itertools.count(1)

    def __init__(
        self,
        prefill_model_labels: list[str] | None = None,
        decode_model_labels: list[str] | None = None,
    ) -> None:
        super(Routed, self).__init__(prefill_model_labels, decode_model_labels)
        self._begin()

    def select_prefill_endpoint(self, prefiller_endpoints: Sequence[Any]) -> Any:
        """The endpoint whose cache and load suit the prompt.

        Raises:
            ValueError: No endpoints.
        """
        if self.decision.shadow is not None:
            return super().select_prefill_endpoint(prefiller_endpoints)
        return self._select(prefiller_endpoints, True)

    def select_decode_endpoint(self, decoder_endpoints: Sequence[Any]) -> Any:
        """The endpoint with the fewest requests in flight.

        Raises:
            ValueError: No endpoints.
        """
        if self.decision.shadow is not None:
            return super().select_decode_endpoint(decoder_endpoints)
        return self._select(decoder_endpoints, False)

    async def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """For requests that the host does not split: multipart ones.

        Raises:
            HTTPException: 503, no endpoint prefills or none decodes.
        """
        half, _ = self._find_endpoints(endpoints)
        if self.decision.shadow is not None:
            return str(half[0].url)
        return self.decision.choose(
            half, engine_stats, request_stats, request, request_json, _half(self, True)
        )

    def _select(self, endpoints: Sequence[Any], prefill: bool) -> Any:
        monitor = _monitor()
        exchange = _exchange.get()
        body = None if exchange is None else exchange.body()
        now = time.time()
        stats = monitor.get_request_stats(now) if monitor is not None else {}
        task = _task()
        url = self.decision.choose(endpoints, None, stats, task, body, _half(self, prefill))
        if monitor is not None:
            # The host reports neither half.
            request_id = f"routecore-{next(self._serial)}"
            monitor.on_new_request(url, request_id, now)
            attempt = follow(task).attempt_at(url)
            if exchange is not None and attempt is not None:
                exchange.follow(attempt, prefill)
        return next(endpoint for endpoint in endpoints if endpoint.url == url)


class _Exchange:
    """A request and its answer, as they pass."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._prefills: list[Attempt] = []
        self._decodes: list[Attempt] = []
        self._good = self._begun = False

    def body(self) -> Any:
        try:
            return msgspec.json.decode(b"".join(self.pieces))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def follow(self, attempt: Attempt, prefill: bool) -> None:
        """One half of the request goes to its endpoint."""
        (self._prefills if prefill else self._decodes).append(attempt)
        if prefill:
            # An engine answers a prefill when it is done.
            attempt.on_answer = self._prefilled

    def _prefilled(self) -> None:
        now = time.time()
        while self._prefills:
            half = self._prefills.pop()
            half.monitor.on_request_response(half.url, half.request_id, now)
            lifecycle = current()
            if lifecycle is not None:
                lifecycle.ended(half.url, half.request_id)
            half.monitor.count_complete(half.url, half.request_id, now)

    def passes(self, message: Any) -> None:
        """A piece of the answer goes to the client."""
        if message["type"] == "http.response.start":
            self._good = message["status"] < 400
            if self._good:
                self._prefilled()
        elif self._good and not self._begun and message.get("body"):
            self._begun = True
            for half in self._decodes:
                half.monitor.on_request_response(half.url, half.request_id, time.time())

    def ended(self) -> None:
        """The answer was passed on, as far as it came."""
        for half in self._decodes if self._good else ():
            half.monitor.on_request_complete(half.url, half.request_id, time.time())


_exchange: ContextVar[_Exchange | None] = ContextVar("routecore_exchange", default=None)


class Tap:
    """ASGI middleware that lets the orchestrated router see a request and its answer.

    The host asks it for endpoints without the request, and reports nothing of what follows.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange()
        _exchange.set(exchange)

        async def seen_receive() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                exchange.pieces.append(message.get("body", b""))
            return message

        async def seen_send(message: Any) -> None:
            exchange.passes(message)
            await send(message)

        await self._app(scope, seen_receive, seen_send)
        exchange.ended()


def _half(router: Routed, prefill: bool) -> Any:
    """The half of `prefill_decode`; None, the strategy itself, for any other strategy."""
    return getattr(router.decision.router, "prefill" if prefill else "decode", None)


def _task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _monitor() -> Any:
    try:
        monitor = host.request_stats.get_request_stats_monitor()
    except ValueError:  # the host has none yet
        return None
    return monitor if hasattr(monitor, "on_request_failed") else None
