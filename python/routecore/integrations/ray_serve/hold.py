"""Requests of Serve that wait at the router until a replica has room in its KV cache."""

import importlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from routecore.endpoints.stats import EndpointInfo
from routecore.errors import RouteError
from routecore.hold import Held, Rejected
from routecore.hold.queue import Source
from routecore.integrations.ray_serve.replica_state import put
from routecore.integrations.shared.fleet import Fleet

_MAX_ADMITTED = 4096

Question: TypeAlias = tuple[
    tuple[EndpointInfo, ...], Mapping[str, str] | None, Mapping[str, Any] | None
]
"""What a choice is asked with: endpoints, the session's header, the body."""


class Room:
    """Where requests wait, and who was let in.

    Args:
        fleet: What chooses.
        now: Endpoints and stats whenever asked; used where a request may go to all replicas.
    """

    def __init__(self, fleet: Fleet, now: Source) -> None:
        self._fleet, self._now = fleet, now
        self._admitted: dict[str, str] = {}

    async def wait(self, asked: Question, pending: Any) -> str | None:
        """Where the request goes, once there is room.

        Serve's routing task waits here. Serve cancels it when the caller leaves, and then nothing
        is left of the wait. Serve asks again where a replica does not say in time how many
        requests it has: who was let in does not wait for the place that is its own.

        Args:
            asked: The question as it is now.
            pending: Serve's own request.

        Returns:
            The URL; None if the request was refused, which ends it with Serve's
            `BackPressureError` (429, Retry-After), or if no replica is left, for which Serve waits
            by itself.
        """
        endpoints, headers, body = asked
        request_id = pending.metadata.internal_request_id
        home = self._admitted.get(request_id)
        if home is not None and any(one.url == home for one in endpoints):
            return home
        everybody = self._now()[0]
        source = self._now if len(endpoints) == len(everybody) else self._fleet.source(endpoints)
        try:
            url = await self._fleet.acquire(source, headers, body)
        except Rejected as full:
            if not pending.future.done():
                pending.future.set_exception(_refusal(self._fleet, full))
            return None
        except RouteError:
            if self._now()[0]:
                raise
            return None
        put(self._admitted, request_id, url, _MAX_ADMITTED)
        return url


class Explains:
    """What a router of Serve's says of those who wait."""

    _fleet: Fleet | None = None

    def held(self) -> tuple[Held, ...]:
        """The requests that wait for room in this process, oldest first, and what for."""
        return () if self._fleet is None else self._fleet.held()


def _refusal(fleet: Fleet, full: Rejected) -> Exception:
    """What Serve's proxy and a FastAPI ingress turn into an answer; handles raise it."""
    counts, limits = fleet.router.hold.counts, fleet.router.hold.limits
    most = limits.max_requests if limits.max_requests is not None else counts.waiting
    error: Exception = importlib.import_module("ray.serve.exceptions").BackPressureError(
        counts.waiting, most, status_code=full.status, retry_after_s=full.retry_after_s
    )
    error.add_note(f"routecore: {full}")
    return error
