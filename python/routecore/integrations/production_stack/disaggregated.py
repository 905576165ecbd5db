"""The host's two routers for engines that only prefill or only decode."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from routecore.integrations.production_stack import host
from routecore.integrations.production_stack.routers import Routed

_logic: Any = host.routing_logic
_body: ContextVar[list[bytes] | None] = ContextVar("routecore_body", default=None)


class DisaggregatedPrefillRouter(Routed, _logic.DisaggregatedPrefillRouter):  # type: ignore[misc]
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
        one = isinstance(request_json, dict) and request_json.get("max_tokens") == 1
        labels = self.prefill_model_labels if one else self.decode_model_labels
        # Without an endpoint of that half any answers better than none.
        half = [e for e in endpoints if e.model_label in labels] or endpoints
        return self.decision.choose(
            half, engine_stats, request_stats, request, request_json, _half(self, one)
        )


class DisaggregatedPrefillOrchestratedRouter(
    Routed,
    _logic.DisaggregatedPrefillOrchestratedRouter,  # type: ignore[misc]
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
        now = time.time()
        stats = monitor.get_request_stats(now) if monitor is not None else {}
        url = self.decision.choose(
            endpoints, None, stats, _task(), _seen_body(), _half(self, prefill)
        )
        if monitor is not None:
            # The host reports neither half; the end of its task ends both.
            monitor.on_new_request(url, f"routecore-{next(self._serial)}", now)
        return next(endpoint for endpoint in endpoints if endpoint.url == url)


class BodyTap:
    """ASGI middleware that keeps a request's body in sight of the orchestrated router.

    The host asks it for endpoints without the request, so there is no other way to the prompt.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        pieces: list[bytes] = []
        _body.set(pieces)

        async def tapped() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                pieces.append(message.get("body", b""))
            return message

        await self._app(scope, tapped, send)


def _half(router: Routed, prefill: bool) -> Any:
    """The half of `prefill_decode`; None, the strategy itself, for any other strategy."""
    return getattr(router.decision.router, "prefill" if prefill else "decode", None)


def _seen_body() -> Any:
    try:
        return msgspec.json.decode(b"".join(_body.get() or ()))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
