"""The request lifecycle, call for call like production-stack's monitor, counted in Rust."""

import math
import threading
from typing import Any, ClassVar

import msgspec

from routecore.endpoints.health import HealthPolicy, Reason, Standing, apply, standing_of, tell
from routecore.endpoints.table import EndpointTable, default_table
from routecore.endpoints.views import RequestStatsView
from routecore.hold.ends import ended
from routecore.process import renew_lock
from routecore.requests.usage import count
from routecore.singleton import SingletonType
from routecore.uncopied import Uncopied


class SingletonMeta(SingletonType):
    """Constructing a producer twice gives the same object; see `routecore.new_instance`."""

    _instances: ClassVar[dict[type, Any]] = {}
    _lock = threading.RLock()


renew_lock(SingletonMeta, "_lock", threading.RLock)

_MOST_ELSEWHERE = 2**32 - 1


class Predictions(msgspec.Struct, frozen=True):
    """What the prefix index promised, beside what engines found in their caches.

    Attributes:
        requests: Requests whose cached tokens were reported.
        over_predicted: Of these, requests that found less than promised by more than a block.
        predicted_tokens: Prompt tokens promised to be cached, over all of them.
        actual_tokens: Prompt tokens found cached.
    """

    requests: int
    over_predicted: int
    predicted_tokens: int
    actual_tokens: int


class RequestStatsMonitor(Uncopied, metaclass=SingletonMeta):
    """Counts each request from its choice to its end, and what a sliding window shows.

    Every event is O(1). Unknown or repeated ends change nothing. A request seen on a second
    endpoint before its first token was a failed attempt and leaves the first one's load.

    Args:
        sliding_window_size: Seconds of the window; required at the first construction.
        lease_timeout: Seconds after which a request that never ended leaves the load.
        table: Where to count; the shared table if left out.
        health: When endpoints that fail are left alone, and for how long; the defaults if left out.

    Raises:
        ValueError: At the first construction without a window, or for one that is not above 0; or
            a setting of `health` makes no sense.
    """

    def __init__(
        self,
        sliding_window_size: float | None = None,
        *,
        lease_timeout: float = 600.0,
        table: EndpointTable | None = None,
        health: HealthPolicy | None = None,
    ) -> None:
        if sliding_window_size is None:
            raise ValueError("RequestStatsMonitor must be initialized with sliding_window_size")
        for name, value in (
            ("sliding_window_size", sliding_window_size),
            ("lease_timeout", lease_timeout),
        ):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected seconds above 0, got {value}")
        self.sliding_window_size = sliding_window_size
        self.table: EndpointTable = default_table() if table is None else table
        self._core = self.table.core
        self._core.configure(float(sliding_window_size), float(lease_timeout))
        self.health: HealthPolicy = HealthPolicy() if health is None else health
        apply(self.health, self._core)

    def __repr__(self) -> str:
        return f"<RequestStatsMonitor, {self.in_flight} in flight>"

    @property
    def leases_expired(self) -> int:
        """Requests that left the load because they never ended."""
        return self._core.leases_expired

    @property
    def in_flight(self) -> int:
        """Requests between their report and their end, on all endpoints."""
        return self._core.in_flight

    @property
    def endpoints_out(self) -> dict[str, int]:
        """How many endpoints are out, by reason."""
        return self._core.endpoints_out

    @property
    def ejections(self) -> int:
        """How often an endpoint went out."""
        return self._core.ejections

    def standing(self, engine_url: str) -> Standing | None:
        """Where the endpoint stands; None: it is in, as nothing bad was reported of it."""
        return standing_of(self._core.standing(engine_url))

    def on_new_request(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The request is about to be sent to the endpoint."""
        verdict = self._core.sent(engine_url, request_id, timestamp)
        if verdict is not None:
            self._trust(engine_url, verdict)

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The first token came back."""
        news = self._core.first_token(engine_url, request_id, timestamp)
        if news is not None:
            tell(news)

    def on_usage(
        self,
        engine_url: str,
        request_id: str,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """The engine's own count of a request's tokens: `usage` of its answer. Optional.

        Call it before the request's end is reported. It teaches how many tokens a text has, for
        how long each engine's cache lasts, and how long a decode step takes. What cannot be a
        count is ignored; `routecore.requests.usage_of` finds the counts in answers of any API.

        Args:
            engine_url: Where the request is.
            request_id: As reported.
            prompt_tokens: `usage.prompt_tokens`.
            cached_tokens: `usage.prompt_tokens_details.cached_tokens`.
            completion_tokens: `usage.completion_tokens`. As of all three, what cannot be a count
                (negative, beyond 2**53, no integer) is passed over: engines write these.
        """
        counts = (count(n) for n in (prompt_tokens, cached_tokens, completion_tokens))
        verdict = self._core.usage(engine_url, request_id, *counts)
        if verdict is not None:
            self._trust(engine_url, verdict)

    @staticmethod
    def _trust(engine_url: str, verdict: str) -> None:
        from routecore.kv_events import trust

        trust.tell(engine_url, verdict)

    @property
    def predictions(self) -> "Predictions":
        """How good the prefix index was, by the cached tokens that engines reported."""
        return Predictions(*self._core.predictions)

    def on_request_complete(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """The request was answered to its end.

        Args:
            engine_url: Where it was.
            request_id: As reported.
            timestamp: When, in seconds.
            status: The HTTP status of the answer, for hosts that report any answer as complete:
                from 500 on the endpoint failed, with 429 and 503 it is busy, any other from 400
                on is the client's own mistake. None: it was served well.
            retry_after: Seconds of the answer's Retry-After, which a busy endpoint is given.

        Raises:
            RouteError: The status is none. The request has ended all the same.
        """
        news = self._core.end(engine_url, request_id, timestamp, status, None, retry_after)
        if news is not None:
            tell(news)
        ended()

    def on_request_failed(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        reason: Reason = "unknown",
        retry_after: float | None = None,
    ) -> None:
        """The request failed or its client left; it leaves the load and is not a latency.

        Args:
            engine_url: Where it was.
            request_id: As reported.
            timestamp: When, in seconds.
            reason: Why. `client` says nothing of the endpoint, nor does `unknown` after a first
                token; `connect` takes it for restarted.
            retry_after: Seconds for which a `busy` endpoint asks to be left alone (Retry-After).

        Raises:
            RouteError: No such reason. The request has ended all the same.
        """
        news = self._core.end(engine_url, request_id, timestamp, None, reason, retry_after)
        if news is not None:
            tell(news)
        ended()

    def forget(self, engine_url: str | None = None, *, learned: bool = False) -> None:
        """Forget what an engine had in its cache, or all had; see `EndpointTable.forget`.

        Args:
            engine_url: The endpoint; all of them if left out.
            learned: Also forget what was learned of it: another engine is behind it.
        """
        self.table.forget(engine_url, learned=learned)

    def on_load_elsewhere(self, engine_url: str, count: int) -> None:
        """What other routers have in flight on the endpoint; holds until the next report.

        Args:
            engine_url: The endpoint.
            count: Their requests; fewer than none, as differences of counts may be, are none.
        """
        self._core.elsewhere(engine_url, min(max(count, 0), _MOST_ELSEWHERE))

    def on_request_swapped(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The engine swapped the request out."""
        self._core.swapped(engine_url)

    def get_request_stats(self, current_time: float) -> RequestStatsView:
        """The stats of all endpoints at a time, as a mapping that costs O(1) to make."""
        self._core.advance(current_time)
        return RequestStatsView(self._core, current_time)
