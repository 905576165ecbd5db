"""Engines that are sent to sleep, and lose their caches.

The host takes a sleeping endpoint off the list before a router sees it, and puts it back once it
is awake: as if nothing had happened. So its own `/sleep` is listened to.
"""

import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from routecore.integrations.production_stack import host

_log = host.logger("routecore.production_stack.sleep")
_ROUTES = "vllm_router.routers.main_router"
_HANDLER = "route_sleep_wakeup_request"


def listen() -> None:
    """Hear the host's `/sleep`. Again, or with a host that has none: no change."""
    routes = sys.modules.get(_ROUTES)
    theirs: Callable[..., Awaitable[Any]] | None = getattr(routes, _HANDLER, None)
    if theirs is None or getattr(theirs, "is_heard", False):
        return

    @wraps(theirs)
    async def route(request: Any, endpoint: str, *rest: Any, **named: Any) -> Any:
        try:
            return await theirs(request, endpoint, *rest, **named)
        finally:
            # Also where the host fails after its engine fell asleep.
            if endpoint == "/sleep":
                _slept(request)

    route.is_heard = True  # type: ignore[attr-defined]
    setattr(routes, _HANDLER, route)


def _slept(request: Any) -> None:
    """Forget the cache of the endpoint that the request names. Never raises."""
    try:
        wanted = request.query_params.get("id")
        for endpoint in host.endpoints():
            if wanted is not None and endpoint.Id == wanted:
                forget(request.app, endpoint)
    except Exception as error:
        _log.warning("routecore: /sleep was not understood: %s: %s", type(error).__name__, error)


def forget(app: Any, endpoint: Any) -> None:
    """Forget what an endpoint's engine had in its cache, on all its ranks, whoever remembers it."""
    monitor: Any = getattr(host.request_stats.get_request_stats_monitor(), "core", None)
    decision: Any = getattr(app.state.router, "decision", None)
    ranks: Any = getattr(decision, "ranks", None)
    urls = [one.url for one in ([endpoint] if ranks is None else ranks.of([endpoint]))]
    rememberers: tuple[Any, ...] = (monitor, getattr(decision, "router", None))
    for one in rememberers:
        if hasattr(one, "forget"):
            for url in urls:
                one.forget(url)
