"""The host's request-stats monitor, counted in Rust, to which every end is reported."""

from typing import Any

from routecore.endpoints.health import Reason
from routecore.endpoints.monitor import RequestStatsMonitor as Core
from routecore.endpoints.ranks import rank_of
from routecore.endpoints.table import EndpointTable
from routecore.endpoints.views import RequestStatsView
from routecore.integrations.production_stack import host, outcome, settings
from routecore.integrations.production_stack.ranks import Placed
from routecore.integrations.production_stack.request_lifecycle import (
    Attempt,
    Ends,
    RequestLifecycle,
    current,
)
from routecore.integrations.shared.shadow import MovedRequests
from routecore.integrations.shared.telemetry import watch


def _passed_on(
    monitor: Ends,
    lifecycle: RequestLifecycle | None,
    attempt: Attempt | None,
    url: str,
    request_id: str,
    timestamp: float,
) -> None:
    """The host passed an answer on, and takes it for served; a cut one is a failure."""
    if attempt is not None and not outcome.is_whole(attempt.answer):
        reason = outcome.of_cut(attempt.answer)
        monitor.on_request_failed(url, request_id, timestamp, reason)
    elif lifecycle is not None and lifecycle.shows_usage:
        # Its usage comes right after, and must come before its end.
        lifecycle.served = (monitor, url, request_id, timestamp)
    else:
        monitor.count_complete(url, request_id, timestamp)


class _Counted:
    """What is shown of the compiled monitor inside."""

    core: Core

    @property
    def in_flight(self) -> int:
        """Requests between their report and their end."""
        return self.core.in_flight

    @property
    def leases_expired(self) -> int:
        """Requests that left the load because they never ended."""
        return self.core.leases_expired


class RequestStatsMonitor(_Counted, host.request_stats.RequestStatsMonitor):
    """Replaces the host's class: same calls, O(1) each, and no request stays for ever.

    Args:
        sliding_window_size: Seconds of the window; required at the first construction.
        lease_timeout: Seconds after which a request that never ended leaves the load; the
            settings' if left out.

    Raises:
        ValueError: At the first construction without a window.
    """

    def __init__(
        self, sliding_window_size: float | None = None, lease_timeout: float | None = None
    ) -> None:
        # Not the host's __init__: its dicts would only grow.
        self.core = core(sliding_window_size, lease_timeout)
        watch(self.core)
        self._placed = Placed()
        self.sliding_window_size = sliding_window_size

    def on_new_request(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The request is about to be sent; an earlier attempt of it has failed."""
        lifecycle = current()
        rank = self._placed.put(engine_url, request_id, lifecycle)
        if lifecycle is not None:
            lifecycle.sent(self, engine_url, request_id).headers = rank_of(rank).headers
        self.core.on_new_request(rank, request_id, timestamp)

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The first chunk came back."""
        rank = self._placed.at(engine_url, request_id)
        self.core.on_request_response(rank, request_id, timestamp)

    def on_request_complete(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The answer was passed on; to its end, unless the host says so of a cut one."""
        lifecycle = current()
        attempt = lifecycle.ended(engine_url, request_id) if lifecycle is not None else None
        if attempt is None and lifecycle is not None and lifecycle.is_traced:
            return  # its failure was reported
        _passed_on(self, lifecycle, attempt, engine_url, request_id, timestamp)

    def count_complete(
        self, engine_url: str, request_id: str, timestamp: float, status: int | None = None
    ) -> None:
        """The request was answered to its end, and nothing more will be reported of it."""
        rank = self._placed.take(engine_url, request_id)
        self.core.on_request_complete(rank, request_id, timestamp, status)

    def on_usage(
        self,
        engine_url: str,
        request_id: str,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """What the engine counted of a request, in tokens; before its end."""
        rank = self._placed.at(engine_url, request_id)
        self.core.on_usage(rank, request_id, prompt_tokens, cached_tokens, completion_tokens)

    def on_request_failed(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        reason: Reason = "unknown",
        retry_after: float | None = None,
    ) -> None:
        """The request failed or its client left; `reason` as the core's monitor takes it."""
        rank = self._placed.take(engine_url, request_id)
        self.core.on_request_failed(rank, request_id, timestamp, reason, retry_after)

    def on_request_swapped(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The engine swapped the request out."""
        self.core.on_request_swapped(engine_url, request_id, timestamp)

    def get_request_stats(self, current_time: float) -> RequestStatsView:
        """URL → stats, as a mapping that costs O(1) to make."""
        return self.core.get_request_stats(current_time)


class ShadowMonitor(_Counted, host.request_stats.RequestStatsMonitor):
    """The host's monitor as it is, and beside it the load that our choices would have made.

    Each request counts, in `core`, on the endpoint that we would have chosen, for as long as it
    really took on the other one.
    """

    def __init__(
        self, sliding_window_size: float | None = None, lease_timeout: float | None = None
    ) -> None:
        super().__init__(sliding_window_size)
        self.core = core(sliding_window_size, lease_timeout, EndpointTable())
        watch(self.core)
        self._moved = MovedRequests(self.core)

    def on_new_request(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """Counted by the host at its choice, by us at ours."""
        super().on_new_request(engine_url, request_id, timestamp)
        lifecycle = current()
        if lifecycle is None or lifecycle.choice is None:
            return
        lifecycle.sent(self, engine_url, request_id)
        self._moved.sent(lifecycle.choice, engine_url, request_id, timestamp)

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The first chunk came back."""
        super().on_request_response(engine_url, request_id, timestamp)
        self._moved.on_request_response(engine_url, request_id, timestamp)

    def on_request_complete(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The answer was passed on."""
        super().on_request_complete(engine_url, request_id, timestamp)
        lifecycle = current()
        attempt = lifecycle.ended(engine_url, request_id) if lifecycle is not None else None
        _passed_on(self, lifecycle, attempt, engine_url, request_id, timestamp)

    def count_complete(
        self, engine_url: str, request_id: str, timestamp: float, status: int | None = None
    ) -> None:
        """The request was answered to its end, and nothing more will be reported of it."""
        self._moved.on_request_complete(engine_url, request_id, timestamp, status)

    def on_usage(
        self,
        engine_url: str,
        request_id: str,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """What the engine counted of a request, in tokens; before its end."""
        self._moved.on_usage(
            engine_url, request_id, prompt_tokens, cached_tokens, completion_tokens
        )

    def on_request_failed(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        reason: Reason = "unknown",
        retry_after: float | None = None,
    ) -> None:
        """Ours alone: the host's monitor has no such call, and stays as it is."""
        self._moved.on_request_failed(engine_url, request_id, timestamp, reason, retry_after)


def core(window: float | None, lease: float | None, table: EndpointTable | None = None) -> Core:
    """A compiled monitor of one's own, whatever other the process has."""
    lease = settings.load().lease_timeout if lease is None else lease
    made: Any = type.__call__(Core, window, lease_timeout=lease, table=table)
    return made  # type: ignore[no-any-return]


def health_table() -> EndpointTable | None:
    """The table that knows which endpoints are out, if the host's monitor is ours."""
    try:
        ours = getattr(host.request_stats.get_request_stats_monitor(), "core", None)
    except ValueError:  # the host has none yet
        return None
    return ours.table if isinstance(ours, Core) else None
