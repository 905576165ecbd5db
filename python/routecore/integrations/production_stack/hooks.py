"""The object that the host calls before and after each request (`--callbacks`)."""

from collections.abc import Callable
from typing import Any

from routecore.integrations.production_stack.request_lifecycle import current, follow
from routecore.requests.usage import usage_of


class Callbacks:
    """Follows each request to its end, and reads what engines report of their cache.

    Args:
        check: Called with the application before each request.
    """

    def __init__(self, check: Callable[[Any], None]) -> None:
        self._check = check

    def pre_request(self, request: Any, request_body: Any, request_json: Any) -> None:
        """Before the host chooses; never answers in its place."""
        lifecycle = follow(request)
        lifecycle.body, lifecycle.shows_usage = request_json, True
        self._check(request.app)

    async def post_request(self, request: Any, response_content: bytes | bytearray) -> None:
        """After a request that went well, whose answer the host kept."""
        lifecycle = current()
        usage = usage_of(response_content)
        if usage is not None:
            decision = getattr(request.app.state.router, "decision", None)
            if decision is not None and usage.cached_tokens is not None:
                decision.telemetry.used(usage.cached_tokens)
            if lifecycle is not None and lifecycle.served is not None:
                monitor, url, request_id, _ = lifecycle.served
                monitor.on_usage(url, request_id, *usage)
        if lifecycle is not None:
            lifecycle.count_served()
