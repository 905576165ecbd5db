"""The calls of a router whose requests may wait: `admit`, `acquire`, `acquire_sync`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from routecore import _core
from routecore.hold import Go, Hold, HoldLimits, Reject, Rejected, Verdict, Wait
from routecore.hold.acquire import acquire, acquire_sync, new_id
from routecore.hold.queue import Source, Sources, Waiter
from routecore.interface import Endpoint
from routecore.requests.body import body_of
from routecore.requests.headers import session_named


class Holding:
    """Requests wait at the router until the endpoint chosen for them has room in its KV cache.

    Every strategy has these calls. The stats must be those of our `RequestStatsMonitor`, which
    hears of ends. Instead of endpoints, a function may be given that returns endpoints, engine
    stats and request stats: it is asked at each try, so that a request that waits meets the
    endpoints of the moment at which it goes.
    """

    strategy: ClassVar[str]
    _core: _core.Router
    _hold: Hold | None = None

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def _prompt(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        """What the strategy goes by, and the prompt in any case: it needs room."""
        keys = (*self._keys(request, request_json), None, None, None)[:3]
        if keys[1] is None:
            return keys[0], body_of(request, request_json), keys[2]
        return keys

    def _session(self, request: Any, request_json: Any) -> str | None:
        """The session that the request is a turn of, where whole sessions are let in."""
        name = self.hold.limits.sessions
        if name is None:
            return None
        headers = getattr(request, "headers", None)
        return session_named(name, headers, body_of(request, request_json))

    def _waiter(
        self,
        source: Source | Sources,
        request: Any,
        body: Any,
        request_id: str | None,
        ticket: bool,
    ) -> Waiter:
        name = (request_id or new_id()) if ticket else None
        return Waiter(source, name, self._session(request, body))

    @property
    def hold(self) -> Hold:
        """The requests that wait: counts, limits. Made at first use."""
        if self._hold is None:
            self._hold = Hold(self._core, self.strategy, HoldLimits())
        return self._hold

    def set_hold(self, limits: HoldLimits) -> None:
        """Set the bounds; before the first request.

        Raises:
            RouteError: A bound is out of range.
        """
        self._hold = Hold(self._core, self.strategy, limits)

    def admit(
        self,
        endpoints: Sequence[Endpoint] | Source,
        engine_stats: Mapping[str, Any] | None = None,
        request_stats: Mapping[str, Any] | None = None,
        request: Any = None,
        request_json: Mapping[str, Any] | None = None,
        *,
        waiter: int | None = None,
        request_id: str | None = None,
        ticket: bool = True,
        priority: float = 0.0,
        patience: float | None = None,
    ) -> Verdict:
        """Whether the request may go now, for hosts with a loop of their own.

        Args:
            endpoints: As for `route_request`, or a function that returns all three.
            engine_stats: As for `route_request`.
            request_stats: The mapping of our monitor.
            request: As for `route_request`.
            request_json: As for `route_request`.
            waiter: The number of a `Wait`, to ask again for the same request.
            request_id: The id under which the request is, or will be, known to the monitor.
            ticket: As for `acquire`.
            priority: Steps of priority: each counts as some seconds of waiting.
            patience: Seconds that it waits at most.

        Returns:
            `Go`, `Wait` or `Reject`. One that waits must be asked for again, or left by
            `hold.abandon(waiter)`.

        Raises:
            RouteError: No endpoints, none eligible, or stats that are not our monitor's.
        """
        hold = self.hold
        if waiter is None:
            source = _source(endpoints, engine_stats, request_stats)
            asked = self._waiter(source, request, request_json, request_id, ticket)
            asked.polled = True
            hold.enter(asked, self._prompt(request, request_json), priority, patience)
        else:
            asked = hold.waiter(waiter)
            hold.ask_again(asked)
        outcome = asked.outcome
        if outcome is None:
            return Wait(asked.number, hold.ahead(asked.number))
        hold.forget(asked)
        if isinstance(outcome, Go):
            return outcome
        if isinstance(outcome, Rejected):
            return Reject(outcome.reason, outcome.retry_after_s)
        raise outcome

    async def acquire(
        self,
        endpoints: Sequence[Endpoint] | Source,
        engine_stats: Mapping[str, Any] | None = None,
        request_stats: Mapping[str, Any] | None = None,
        request: Any = None,
        request_json: Mapping[str, Any] | None = None,
        *,
        request_id: str | None = None,
        ticket: bool = True,
        priority: float = 0.0,
        patience: float | None = None,
    ) -> Go:
        """Wait until the request may go. Ends wake it; cancelled, it leaves nothing behind.

        Args:
            endpoints: As for `route_request`, or a function that returns all three.
            engine_stats: As for `route_request`.
            request_stats: The mapping of our monitor.
            request: As for `route_request`.
            request_json: As for `route_request`.
            request_id: The id under which the host will report the request; left out, only the
                ticket tells the monitor of it.
            ticket: False: for hosts that report under an id of their own. The choice then counts
                for a second, like one of `route_request`.
            priority: Steps of priority: each counts as some seconds of waiting.
            patience: Seconds that it waits at most.

        Raises:
            Rejected: A bound is reached; has the reason and when to come again.
            RouteError: No endpoints, none eligible, or stats that are not our monitor's.
        """
        source = _source(endpoints, engine_stats, request_stats)
        asked = self._waiter(source, request, request_json, request_id, ticket)
        prompt = self._prompt(request, request_json)
        return await acquire(self.hold, asked, prompt, priority, patience)

    def acquire_sync(
        self,
        endpoints: Sequence[Endpoint] | Source,
        engine_stats: Mapping[str, Any] | None = None,
        request_stats: Mapping[str, Any] | None = None,
        request: Any = None,
        request_json: Mapping[str, Any] | None = None,
        *,
        request_id: str | None = None,
        ticket: bool = True,
        priority: float = 0.0,
        patience: float | None = None,
    ) -> Go:
        """`acquire` for threads: blocks this one until the request may go."""
        source = _source(endpoints, engine_stats, request_stats)
        asked = self._waiter(source, request, request_json, request_id, ticket)
        prompt = self._prompt(request, request_json)
        return acquire_sync(self.hold, asked, prompt, priority, patience)


def _source(endpoints: Any, engine_stats: Any, request_stats: Any) -> Source | Sources:
    return endpoints if callable(endpoints) else (endpoints, engine_stats, request_stats)
