"""The host's router classes under their own names, with our strategies inside.

Each subclasses the host's class, because the host picks the way to call a router by isinstance.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from routecore.endpoints.views import RequestStatsView
from routecore.errors import RouteError
from routecore.hold import Held
from routecore.integrations.production_stack import host, monitor, settings
from routecore.integrations.production_stack.decision import Decision
from routecore.integrations.production_stack.ring import SessionRing
from routecore.integrations.shared.prompts import CHARS_PER_TOKEN, PromptIndex, prompt_text
from routecore.interface import RoutingInterface

_log = host.logger("routecore.production_stack.routers")
_logic: Any = host.routing_logic


class Routed:
    """What all of them share.

    Attributes:
        logic: The host's word for the routing logic.
        decision: Our strategy; it outlives a dynamic reload of the host.
        closed: The router that the host closed last, as it does before it builds another.
        session_key: Header, or key of the body, that carries the session id; None for none.
        max_instance_failover_reroute_attempts: How often the host routes a failed request again.
    """

    logic: ClassVar[str]
    decision: Decision
    closed: ClassVar["Routed | None"] = None
    session_key: str | None = None
    max_instance_failover_reroute_attempts: int = 0

    def _begin(self, **flags: Any) -> None:
        if self.session_key:
            flags["session_key"] = self.session_key
        try:
            self.decision = Decision(self.logic, settings.load(), flags)
        except RouteError as error:
            raise settings.StartError(str(error)) from None
        self._initialized = True

    def _choose(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any,
    ) -> str:
        return self.decision.choose(
            endpoints, engine_stats, request_stats, request, request_json, self._rule()
        )

    def _rule(self) -> Callable[..., str] | None:
        """What chooses instead of the strategy, if anything does."""
        return None

    def extract_session_id(self, request: Any, request_json: Any = None) -> str | None:
        """The session a request belongs to: its header first, then the key of its body."""
        extract: Any = RoutingInterface.extract_session_id
        found: str | None = extract(self, request, request_json)
        return found

    def held(self) -> tuple[Held, ...]:
        """The requests that wait for room, oldest first, and what each waits for."""
        return self.decision.router.hold.held() if self.decision.holds else ()

    def close(self) -> None:
        """The host calls this at each reload and at its end; the router goes on working."""
        Routed.closed = self
        self.decision.close()


class _Called(Routed):
    """Routers that the host calls without awaiting them."""

    def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """The URL of the endpoint to send the request to.

        Raises:
            RouteError: There are no endpoints.
        """
        if self.decision.shadow is None:
            return self._choose(endpoints, engine_stats, request_stats, request, request_json)
        url: str = super().route_request(  # type: ignore[misc]
            endpoints, engine_stats, request_stats, request
        )
        self.decision.record_beside(url, endpoints, engine_stats, request, request_json)
        return url


class _Awaited(Routed):
    """Routers that the host awaits, and hands the body."""

    async def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """The URL of the endpoint to send the request to.

        Raises:
            RouteError: There are no endpoints.
        """
        await self.decision.prepare(request_json)
        if self.decision.shadow is None:
            if self.decision.holds and self._rule() is None and endpoints:
                return await self.decision.wait(
                    endpoints, engine_stats, request_stats, request, request_json
                )
            return self._choose(endpoints, engine_stats, request_stats, request, request_json)
        url: str = await super().route_request(  # type: ignore[misc]
            endpoints, engine_stats, request_stats, request, request_json
        )
        rule = self._rule()
        self.decision.record_beside(url, endpoints, engine_stats, request, request_json, rule)
        return url


class RoundRobinRouter(_Called, _logic.RoundRobinRouter):
    """Each endpoint in turn, one counter per set of endpoints."""

    logic = "roundrobin"

    def __init__(self) -> None:
        super(Routed, self).__init__()
        self._begin()


class SessionRouter(_Awaited, _logic.SessionRouter):
    """A session's endpoint on the host's own ring; requests without a session go by load.

    Args:
        session_key: Header, else body key, that names the session.

    Raises:
        ValueError: No session key.
    """

    logic = "session"

    def __init__(self, session_key: str | None = None) -> None:
        super(Routed, self).__init__(session_key)
        self._ring = SessionRing()
        self._begin()

    def _rule(self) -> Callable[..., str] | None:
        return self._by_ring if self.decision.is_equal else None

    def _by_ring(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any,
    ) -> str:
        session = self.extract_session_id(request, request_json)
        if session is not None:
            return self._owner(session, {endpoint.url for endpoint in endpoints})
        if not isinstance(request_stats, RequestStatsView):
            url: str = self._qps_routing(endpoints, request_stats)
            return url
        route = self.decision.router.route_request
        return str(route(endpoints, engine_stats, request_stats, request, request_json))

    def _owner(self, session: str, urls: set[str]) -> str:
        """The session's endpoint; while that is out, the next on the ring that is not."""
        owner = first = self._ring.owner(session, urls)
        table, now = monitor.health_table(), time.time()
        while table is not None and table.is_out(owner, now):
            urls = urls - {owner}
            if not urls:
                return first
            owner = self._ring.owner(session, urls)
        return owner


class PrefixAwareRouter(_Awaited, _logic.PrefixAwareRouter):
    """Prompts that begin alike go to the same endpoint, as far as its load allows.

    Without our monitor there is no load to go by. Then, unless a strategy was chosen, it does
    what the host's class does, over a bounded index; so too with another `hashtrie` put in.

    Args:
        prefix_min_match_length: Characters below which a match does not count; a quarter as many
            tokens for strategies that take `min_match_tokens`.
    """

    hashtrie: PromptIndex

    logic = "prefixaware"

    def __init__(self, prefix_min_match_length: int = 0) -> None:
        self.prefix_min_match_length = prefix_min_match_length
        if prefix_min_match_length:
            self._begin(min_match_tokens=prefix_min_match_length / CHARS_PER_TOKEN)
        else:
            self._begin()
        if self.decision.shadow is not None:
            del self._initialized  # the host's own __init__ returns early where it is set
            super(Routed, self).__init__(prefix_min_match_length)
            return
        self._index = self.hashtrie = PromptIndex()

    async def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """The URL of the endpoint to send the request to.

        Raises:
            RouteError: There are no endpoints.
        """
        if self.decision.shadow is None and endpoints:
            other = self.hashtrie is not self._index
            ours = isinstance(request_stats, RequestStatsView)
            if other or (self.decision.is_equal and not ours):
                return await self._as_host(endpoints, request_stats, request_json)
        return await super().route_request(
            endpoints, engine_stats, request_stats, request, request_json
        )

    async def _as_host(
        self, endpoints: Sequence[Any], request_stats: Any, request_json: Any
    ) -> str:
        text = prompt_text(request_json)
        urls = {endpoint.url for endpoint in endpoints}
        length, matched = await self.hashtrie.longest_prefix_match(text, urls)
        if length < self.prefix_min_match_length:
            url: str = self._qps_routing(endpoints, request_stats or {})
        else:
            url = random.choice(sorted(matched))
        await self.hashtrie.insert(text, url)
        return url


class KvawareRouter(_Awaited, _logic.KvawareRouter):
    """Routes by the engines' KV events where the settings name them, else by what we sent where.

    It neither starts nor asks the LMCache controller.

    Args:
        session_key: Kept for the host, which logs the session.
        controller: The controller's settings; not used.
    """

    logic = "kvaware"

    def __init__(self, *_args: Any, session_key: str | None = None, **controller: Any) -> None:
        if settings.load().mode == "shadow":
            super(Routed, self).__init__(*_args, session_key=session_key, **controller)
        self.session_key = session_key
        self._begin()

    def start_kv_manager(self) -> None:
        """Says, once a start, what the host's user should know."""
        if self.decision.shadow is not None:
            super().start_kv_manager()
            return
        if self.decision.caches is not None:
            return
        _log.warning(
            "routecore: %s hears no KV events: it routes with %s, by the prompts that it sent to "
            "each endpoint, and does not start the LMCache controller; set kv_events or "
            "kv_events_port to where the engines publish",
            self.logic,
            self.decision.strategy,
        )

    def close(self) -> None:
        """The host calls this at each reload and at its end; the router goes on working."""
        if self.decision.shadow is not None:
            super(Routed, self).close()
        super().close()


_BETA = 1.0  # the host's default
NO_BETA = (
    "routecore: --loadaware-beta %s is not used: %s learns from the engines what load costs and "
    "what a cached prefix saves, in milliseconds"
)
# Hosts since pull request 1035 have the class.
_load_aware: Any = getattr(_logic, "LoadAwareRouter", _logic.KvawareRouter)


class LoadAwareRouter(KvawareRouter, _load_aware):
    """Weighs the cache against the load of each endpoint.

    Args:
        session_key: Kept for the host, which logs the session.
        loadaware_beta: Named in the log if it was set: the strategy weighs both in milliseconds,
            by what it learns of the engines.
        controller: The controller's settings; not used.
    """

    logic = "loadaware"

    def __init__(
        self,
        *_args: Any,
        session_key: str | None = None,
        loadaware_beta: float | None = None,
        **controller: Any,
    ) -> None:
        if settings.load().mode == "shadow" and loadaware_beta is not None:
            controller["loadaware_beta"] = loadaware_beta
        super().__init__(*_args, session_key=session_key, **controller)
        if loadaware_beta not in (None, _BETA) and self.decision.shadow is None:
            _log.warning(NO_BETA, loadaware_beta, self.decision.strategy)
