"""One strategy behind one routing logic of the host: chooses, measures, never fails a request."""

import importlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from routecore.errors import RouteError
from routecore.hold import HoldLimits, Rejected
from routecore.integrations.production_stack import host
from routecore.integrations.production_stack.left import Left, unless_left
from routecore.integrations.production_stack.ranks import Ranks, send
from routecore.integrations.production_stack.request_lifecycle import follow
from routecore.integrations.production_stack.settings import EQUAL, Settings
from routecore.integrations.shared import defaults
from routecore.integrations.shared.engine_caches import EngineCaches, engine_caches
from routecore.integrations.shared.log_throttle import LogThrottle
from routecore.integrations.shared.replicas import replicas_of_process
from routecore.integrations.shared.shadow import Shadow
from routecore.integrations.shared.telemetry import Telemetry
from routecore.routers.compiled import CompiledRouter
from routecore.routers.prefill_decode import PrefillDecodeRouter

_log = host.logger("routecore.production_stack")

# The host's routing logics, each with our equal.
EQUALS = {
    "roundrobin": "round_robin",
    "session": "least_connections",  # of requests without a session; the others go by the ring
    "prefixaware": defaults.PRODUCTION_STACK,
    "kvaware": defaults.PRODUCTION_STACK,
    "loadaware": "expected_latency",
    "disaggregated_prefill": "prefill_decode",
    "disaggregated_prefill_orchestrated": "prefill_decode",
}


# The host awaits these, so that requests can wait in them.
_AWAITED = ("session", "prefixaware", "kvaware", "loadaware")
_LEFT = 499  # as nginx logs it; nobody is there to read it
_SPLIT = ("disaggregated_prefill", "disaggregated_prefill_orchestrated")


class Decision:
    """The strategy that the settings name, or our equal of the host's logic.

    Args:
        logic: The host's word for its routing logic.
        settings: What the user chose.
        flags: Parameters that the host's own flags say, for strategies that take them.

    Raises:
        RouteError: The settings name a parameter wrongly.
    """

    def __init__(self, logic: str, settings: Settings, flags: Mapping[str, Any]) -> None:
        self.is_equal: bool = settings.strategy == EQUAL
        self.strategy: str = EQUALS[logic] if self.is_equal else settings.strategy
        self._settings, self._session_key = settings, flags.get("session_key")
        chosen = msgspec.structs.replace(settings, strategy=self.strategy)
        taken = chosen.accepts()
        params = {name: flags[name] for name in flags if name in taken} | settings.params
        chosen = msgspec.structs.replace(chosen, params=params)
        self.caches: EngineCaches | None = engine_caches(chosen, _log)
        caches = {} if self.caches is None else self.caches.params()
        self.router: Any = chosen.router(**caches)
        replicas_of_process(settings, self.router)
        if logic not in _SPLIT:
            _check_labels(self.router, host.labels())
        self.telemetry: Telemetry = Telemetry("production_stack", self.strategy)
        by_ring = self.is_equal and logic == "session"
        can_wait = logic in _AWAITED and isinstance(self.router, CompiledRouter) and not by_ring
        self.holds: bool = settings.hold and can_wait and settings.mode == "active"
        if settings.hold and not self.holds:
            _log.warning(
                "routecore: hold has no effect with routing logic %s, strategy %s, mode %s",
                logic,
                settings.strategy,
                settings.mode,
            )
        if self.holds:
            self.router.set_hold(HoldLimits(**settings.hold_limits))
            self.telemetry.holds(self.router.hold)
        self.shadow: Shadow | None = None
        if settings.mode == "shadow":
            self.shadow = Shadow(settings, self.strategy, self.router, self._failed)
        self.ranks: Ranks | None = self._ranks(logic)
        self._logs = LogThrottle()
        shown = "".join(f" {name}={value!r}" for name, value in params.items())
        _log.info(
            "routecore: routing logic %s, strategy %s%s, mode %s",
            logic,
            self.strategy,
            shown or " with its defaults",
            settings.mode,
        )

    async def prepare(self, body: Any) -> None:
        """Tokenise, off the event loop, what KV events need of a choice. Never raises."""
        if self.caches is not None:
            try:
                await self.caches.prepare(body)
            except Exception as error:
                self._failed(error)

    def choose(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        body: Any = None,
        rule: Callable[..., str] | None = None,
    ) -> str:
        """The URL to send the request to; on any error of ours, the one with the least load.

        Args:
            endpoints: Candidates; not empty.
            engine_stats: As the host has them.
            request_stats: As the host has them.
            request: The Starlette request, or whatever stands for it.
            body: Its parsed body; the one that the callbacks saw if left out.
            rule: Chooses instead of the strategy; takes the arguments of `route_request`.

        Raises:
            RouteError: There are no endpoints.
        """
        if not endpoints:
            raise RouteError(f"{self.strategy}: needs at least one endpoint")
        began = time.perf_counter()
        try:
            self._follow_events(endpoints)
            lifecycle = follow(request)
            given = lifecycle.body if body is None else body
            route = self.router.route_request if rule is None else rule
            asked = endpoints if self.ranks is None else self.ranks.of(endpoints)
            url: str = route(asked, engine_stats, request_stats, request, given)
            if self.ranks is not None:
                url = send(url, lifecycle)
        except Exception as error:
            self._failed(error)
            return fewest_in_flight(endpoints, request_stats)
        self.telemetry.decided(time.perf_counter() - began)
        return url

    def _ranks(self, logic: str) -> Ranks | None:
        """The engines' data-parallel ranks, where the strategy is to choose among them."""
        if self._settings.data_parallel_ranks < 2:
            return None
        if logic not in _SPLIT and self.shadow is None:
            return Ranks(self._settings.data_parallel_ranks)
        _log.warning(
            "routecore: data_parallel_ranks has no effect with routing logic %s, mode %s",
            logic,
            self._settings.mode,
        )
        return None

    def _follow_events(self, endpoints: Sequence[Any]) -> None:
        """Keep up with whose KV events there are to hear."""
        if self.caches is None:
            return
        ranks = self.ranks
        if ranks is None:
            self.caches.follow(lambda: host.addresses(endpoints))
        else:
            self.caches.follow(lambda: ranks.addresses(host.addresses(endpoints)))

    async def wait(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        body: Any = None,
    ) -> str:
        """`choose`, once the endpoint that is chosen has room.

        Raises:
            RouteError: There are no endpoints.
            HTTPException: 429, too many wait or for too long; 499, the client has left.
        """
        try:
            self._follow_events(endpoints)
            lifecycle = follow(request)
            given = lifecycle.body if body is None else body
            asked = endpoints if self.ranks is None else self.ranks.of(endpoints)
            # The host reports the request under an id of its own, right after this.
            asking = self.router.acquire(
                asked, engine_stats, request_stats, request, given, ticket=False
            )
            go = await unless_left(request, asking)
        except Rejected as full:
            self.telemetry.rejected(full.reason)
            fastapi: Any = importlib.import_module("fastapi")  # the host's
            after = {"Retry-After": f"{full.retry_after_s:.0f}"}
            raise fastapi.HTTPException(full.status, str(full), headers=after) from None
        except Left:
            fastapi = importlib.import_module("fastapi")
            raise fastapi.HTTPException(_LEFT, "the client left while it waited") from None
        except Exception as error:
            self._failed(error)
            return self.choose(endpoints, engine_stats, request_stats, request, body)
        self.telemetry.admitted(go.waited_s)
        url: str = go.url
        return url if self.ranks is None else send(url, lifecycle)

    def record_beside(
        self,
        url: str,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request: Any,
        body: Any,
        rule: Callable[..., str] | None = None,
    ) -> None:
        """Record what we would have chosen where the host chose `url`. Never raises.

        Args:
            url: The host's choice.
            endpoints: As for `choose`.
            engine_stats: As the host has them.
            request: As for `choose`.
            body: As for `choose`.
            rule: What active mode would choose by instead of the strategy.
        """
        shadow = self.shadow
        if shadow is None:
            return
        try:
            self._follow_events(endpoints)
            lifecycle = follow(request)
            given = lifecycle.body if body is None else body
            asked = (endpoints, engine_stats, _shadow_stats(), request, given)
            lifecycle.choice = shadow.choose(asked, rule)
            self.telemetry.shadowed(lifecycle.choice.seconds)
            lifecycle.choice.goes(url)
        except Exception as error:
            self._failed(error)

    def is_like(self, other: "Decision") -> bool:
        """Whether the other would choose alike, had it learned the same."""
        return (self._settings, self._session_key) == (other._settings, other._session_key)

    def close(self) -> None:
        """Write what is buffered; the decision goes on working."""
        if self.shadow is not None:
            self.shadow.close()

    def end(self) -> None:
        """Another decision has taken over: hear no engines any more."""
        self.close()
        if self.caches is not None:
            self.caches.close()

    def _failed(self, error: Exception) -> None:
        self.telemetry.fell_back()
        count = self._logs()
        if count:
            _log.warning(
                "routecore: %s failed %d times since the last such line; "
                "requests went to the least loaded endpoint instead: %s: %s",
                self.strategy,
                count,
                type(error).__name__,
                error,
            )


def _check_labels(router: Any, labels: set[str]) -> None:
    """Whether each half of a pair has endpoints, as far as there are any yet."""
    if not isinstance(router, PrefillDecodeRouter) or not labels:
        return
    for half, wanted in (("prefill", router.prefill_labels), ("decode", router.decode_labels)):
        if labels.isdisjoint(wanted):
            raise RouteError(
                f"{router.strategy}: no endpoint has a model label of {', '.join(wanted)} "
                f"(there are {', '.join(sorted(labels))}); set --static-model-labels, or "
                f"{half}_labels in its params"
            )


def _shadow_stats() -> Any:
    """The load that our choices would have made, as far as our shadow monitor knows it."""
    monitor = host.request_stats.get_request_stats_monitor()
    return getattr(monitor, "core", monitor).get_request_stats(time.time())


def fewest_in_flight(endpoints: Sequence[Any], request_stats: Mapping[str, Any] | None) -> str:
    """The endpoint with the fewest requests, by plain means; any, when those fail as well."""

    def load(endpoint: Any) -> float:
        stats = (request_stats or {}).get(endpoint.url)
        return 0 if stats is None else stats.in_prefill_requests + stats.in_decoding_requests

    try:
        return str(min(endpoints, key=load).url)
    except Exception:
        return str(random.choice(endpoints).url)
