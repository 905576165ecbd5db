"""Ray Serve: any strategy as the request router of a deployment, by configuration alone.

    RequestRouterConfig(
        request_router_class="routecore.integrations.ray_serve.RoutecoreRequestRouter",
        request_router_kwargs={"strategy": "prefix_affinity", "load_factor": 1.25},
    )

The index and the counts live in the process that routes: no actor is called for a choice.
"""

import asyncio
import heapq
import itertools
import logging
import time
from typing import Any

from routecore.endpoints.health import Reason
from routecore.endpoints.stats import EndpointInfo
from routecore.errors import RouteError
from routecore.hold.queue import Sources
from routecore.integrations.ray_serve.hold import Explains, Room
from routecore.integrations.ray_serve.outcome import listen
from routecore.integrations.ray_serve.prompt import body_of
from routecore.integrations.ray_serve.replica_state import PENDING, Accepted, ReplicaState, put
from routecore.integrations.ray_serve.serves_rule import two_of
from routecore.integrations.shared import defaults
from routecore.integrations.shared.fleet import Fleet
from routecore.integrations.shared.older_routers import warn_of_older
from routecore.integrations.shared.ray_telemetry import RayTelemetry
from routecore.integrations.shared.settings import Settings
from routecore.integrations.shared.shadow import Choice

try:
    from ray.serve.request_router import LocalityMixin, MultiplexMixin, RequestRouter
except ModuleNotFoundError as _missing:
    if _missing.name is None or _missing.name.partition(".")[0] != "ray":
        raise
    raise ImportError(
        "routecore.integrations.ray_serve needs Ray Serve: pip install 'routecore[ray]'"
    ) from _missing

_log = logging.getLogger("ray.serve.routecore")
_TICK_SECONDS = 1.0  # between two looks at Serve's queue cache, and two reports of metrics
_SPILL = 8  # replicas offered after ours: each may be probed by RPC when the fleet is full
_MAX_SHADOWED = 65_536
_MAX_OVER = 256  # ends whose acceptance may still be reported; the two are one loop turn apart
_GRACE = 0.02  # seconds for the caller to learn how a request ended that Serve says is over
_SETTINGS = frozenset(Settings.__struct_fields__) - {"params"}


class RoutecoreRequestRouter(Explains, LocalityMixin, MultiplexMixin, RequestRouter):
    """Serve's request router with a routecore strategy.

    `request_router_kwargs`: `strategy` (a key of `ROUTERS`), `mode` ("active" or "shadow"),
    `lease_timeout` (seconds), `hold` and `hold_limits` (requests wait until a replica has room),
    `replicas` ("ray": the routers of all processes tell each other of their requests); all others
    are parameters of the strategy. Settings that are refused are logged, and Serve's power of two
    chooses; so it does, request by request, when a strategy fails.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Take the settings; Serve calls this once, before the first replica is known."""
        self._replica_states: dict[Any, ReplicaState] = {}
        self._all: tuple[EndpointInfo, ...] = ()
        self._by_url: dict[str, ReplicaState] = {}
        self._tokens = itertools.count()
        # By replica and request: a retry has the id of the try that was rejected elsewhere.
        self._accepted: dict[tuple[Any, str], Accepted] = {}
        self._over: dict[tuple[Any, str], None] = {}
        self._shadowed: dict[str, Choice] = {}
        self._ticking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        chosen: dict[str, Any] = {name: kwargs[name] for name in kwargs if name in _SETTINGS}
        chosen["params"] = {name: kwargs[name] for name in kwargs if name not in _SETTINGS}
        chosen.setdefault("strategy", defaults.RAY_SERVE)
        # Serve ends each request by itself; the lease is for bugs, not for long answers.
        chosen.setdefault("lease_timeout", 86_400.0)
        name = f"{self._deployment_id.app_name}/{self._deployment_id.name}"
        try:
            read = Settings.of(chosen)
            tags = {"deployment": self._deployment_id.name}
            tags["application"] = self._deployment_id.app_name  # as on Serve's own metrics
            self._telemetry = RayTelemetry(read.strategy, tags)
            self._fleet = Fleet(read, name, self._telemetry, _log)
            self._telemetry.watch(self._fleet.monitor)
            if self._fleet.holds:
                self._room = Room(self._fleet, self._now)
            self._telemetry.shares(self._fleet.replicas)
            self._telemetry.chosen(read.mode)
            warn_of_older(name, self)
        except (RouteError, TypeError, ImportError) as error:
            _log.error("routecore %r: %s. Power of two routes until this is mended.", name, error)

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """Ranks, best first: our choice, then the least loaded of the rest."""
        if pending_request is not None and pending_request.metadata.multiplexed_model_id:
            ids = self.apply_multiplex_routing(pending_request=pending_request)
        elif pending_request is not None and self._fleet is not None and self._fleet.holds:
            ids = self._replica_id_set  # who waits, waits for any: not for those nearby alone
            pending_request.routing_context.should_backoff = True
        else:
            ids = self.apply_locality_routing(pending_request=pending_request)
        if len(ids) == len(candidate_replicas):
            candidates = candidate_replicas
        else:
            candidates = [r for r in candidate_replicas if r.replica_id in ids]
        fleet = self._fleet
        if fleet is None or pending_request is None or not candidates:
            return two_of(candidates)
        self._loop = asyncio.get_running_loop()
        self._tick_later()
        try:
            metadata = pending_request.metadata
            body = body_of(
                pending_request.args,
                pending_request.kwargs,
                fleet.router.session_key,
                metadata.multiplexed_model_id,
            )
            if fleet.caches is not None:
                await fleet.prepare(body, self._addresses)
                # Replicas may have gone while the prompt was turned into tokens.
                candidates = [r for r in candidates if r.replica_id in self._replica_states]
            if not candidates:
                return []
            asked = self._asked(fleet, candidates, metadata, body)
            if fleet.shadow is not None:
                choice = fleet.compare(*asked)
                put(self._shadowed, metadata.internal_request_id, choice, _MAX_SHADOWED)
                return two_of(candidates)
            if fleet.holds:
                url = await self._room.wait(asked, pending_request)
                candidates = [r for r in candidates if r.replica_id in self._replica_states]
                if url not in self._by_url:  # refused, or nobody is there any more
                    return [candidates[:1]]
                state = self._by_url[url]
            else:
                state = self._by_url[fleet.choose(*asked)]
        except Exception as error:
            fleet.fault(error)
            return two_of(candidates)
        rest = [r for r in candidates if r is not state.replica]
        if len(rest) > _SPILL:
            rest = heapq.nsmallest(_SPILL, rest, key=lambda r: self._load(r.replica_id))
        return [[state.replica], rest] if rest else [[state.replica]]

    def _asked(
        self, fleet: Fleet, candidates: list[Any], metadata: Any, body: dict[str, Any] | None
    ) -> tuple[tuple[EndpointInfo, ...], dict[str, str] | None, dict[str, Any] | None]:
        """What a choice is asked with: endpoints, the session's header, the body."""
        if len(candidates) == len(self._all):
            endpoints = self._all
        else:
            endpoints = fleet.endpoints(
                tuple(sorted(self._replica_states[r.replica_id].url for r in candidates))
            )
        key = fleet.router.session_key
        session = getattr(metadata, "session_id", "") if key else ""
        headers = {key: session} if key and session else None
        return endpoints, headers, body

    def _now(self) -> Sources:
        """All replicas as they are now, for those who wait."""
        assert self._fleet is not None
        return self._all, None, self._fleet.monitor.get_request_stats(time.time())

    def _load(self, replica_id: Any) -> int:
        state = self._replica_states.get(replica_id)
        return 0 if state is None else state.load

    # Lifecycle. Serve calls these on the router's loop.

    def on_send_request(self, replica_id: Any) -> None:
        """A request goes to the replica: one more in flight."""
        super().on_send_request(replica_id)
        state = self._replica_states.get(replica_id)
        if state is not None and self._fleet is not None:
            # Serve names no request here. The acceptances come in the order of the sendings, or
            # so nearly that a name given to the wrong one of two changes no figure.
            token = str(next(self._tokens))
            state.unanswered.append(token)
            state.open += 1
            if self._fleet.moved is None:  # else its own place is known only once it is accepted
                self._fleet.monitor.on_new_request(state.url, token, time.time())

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """The replica accepted it."""
        super().on_request_routed(pending_request, replica_id, result)
        state = self._replica_states.get(replica_id)
        if state is None or self._fleet is None:
            return
        request_id = pending_request.metadata.internal_request_id
        key = replica_id, request_id
        if key in self._over:
            del self._over[key]  # so short that its end was reported first
        elif state.unanswered:
            self._accepted[key] = one = Accepted(state, state.unanswered.popleft())
            one.is_heard = listen(result, lambda outcome: self._learned(one, outcome))
            self._move(one, request_id)

    def _move(self, one: Accepted, request_id: str) -> None:
        """Shadow mode: count the request where we would have sent it."""
        moved = None if self._fleet is None else self._fleet.moved
        if moved is None:
            return
        choice, now = self._shadowed.pop(request_id, None), time.time()
        if choice is None:
            moved.on_new_request(one.state.url, one.token, now)
        else:
            moved.sent(choice, one.state.url, one.token, now)

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        """A request sent to the replica is over: served, failed, or rejected at the door."""
        super().on_request_completed(replica_id, internal_request_id)
        key = replica_id, internal_request_id
        accepted = self._accepted.pop(key, None)
        state = self._replica_states.get(replica_id)
        if state is None or self._fleet is None:
            return
        if accepted is not None:
            if accepted.state is state:  # else the replica was replaced, and its counts with it
                state.open -= 1
                accepted.is_over = True
                if accepted.is_heard and accepted.outcome == PENDING:
                    loop = asyncio.get_running_loop()
                    loop.call_later(_GRACE, self._end, accepted)
                else:
                    self._end(accepted)
        elif state.unanswered:  # else it was a reserved slot, which Serve sends without a word
            put(self._over, key, None, _MAX_OVER)
            state.open -= 1
            # A rejection follows at once, so it is the last one sent. It says that the replica
            # is full, or that Serve is about to call it unavailable: not that it fails.
            token = state.unanswered.pop()
            self._fleet.ends.on_request_failed(state.url, token, time.time(), "client")
        self._tick_later()

    def _learned(self, one: Accepted, outcome: Reason | None) -> None:
        """The caller learned how a request ended; in the caller's thread."""
        if one.outcome != PENDING:
            return
        one.outcome = outcome
        if one.is_over and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end, one)

    def _end(self, one: Accepted) -> None:
        """Report the end, once; of what nobody waited for, that it went well."""
        if self._fleet is None:
            return
        url, now, outcome = one.state.url, time.time(), one.outcome
        if outcome is None or outcome == PENDING:
            self._fleet.ends.on_request_complete(url, one.token, now)
        else:
            self._fleet.ends.on_request_failed(url, one.token, now, outcome)

    def on_new_queue_len_info(self, replica_id: Any, num_ongoing_requests: int) -> None:
        """The replica tells how many requests it has, those of other routers included."""
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._reported(replica_id, num_ongoing_requests)

    def _reported(self, replica_id: Any, ongoing: int | None, is_old: bool = False) -> None:
        state = self._replica_states.get(replica_id)
        if state is None or self._fleet is None:
            return
        elsewhere = 0 if ongoing is None or is_old else max(0, ongoing - state.open)
        if elsewhere != state.elsewhere:
            state.elsewhere = elsewhere
            self._fleet.monitor.on_load_elsewhere(state.url, elsewhere)
        if ongoing is not None and state.away:
            self._offer(state, True)

    # Membership.

    def update_replicas(self, replicas: list[Any]) -> None:
        """Replicas came or went; what we know of those that stay is kept."""
        super().update_replicas(replicas)
        current = {replica.replica_id: replica for replica in replicas}
        for replica_id in [known for known in self._replica_states if known not in current]:
            self._leave(replica_id)
        for replica_id, replica in current.items():
            state = self._replica_states.get(replica_id)
            if state is None:
                self._replica_states[replica_id] = state = ReplicaState(
                    replica_id.to_full_id_str(), replica
                )
                if self._fleet is not None:
                    self._fleet.table.add(state.url)
            state.replica = replica
        self._relist()

    def on_replica_actor_died(self, replica_id: Any) -> None:
        """The replica is gone; so are its requests in flight."""
        super().on_replica_actor_died(replica_id)
        self._leave(replica_id)
        self._relist()

    def on_replica_actor_unavailable(self, replica_id: Any) -> None:
        """Not chosen first until it answers a probe of Serve's again."""
        super().on_replica_actor_unavailable(replica_id)
        state = self._replica_states.get(replica_id)
        # Without the cache no probe would tell us of its return.
        if state is not None and getattr(self, "_use_replica_queue_len_cache", False):
            self._offer(state, False)

    def _offer(self, state: ReplicaState, here: bool) -> None:
        state.away = not here
        if self._fleet is not None:
            self._fleet.table.add(state.url)  # it may have lost its row by not being used
            self._fleet.table.set_eligible(state.url, here)

    def _leave(self, replica_id: Any) -> None:
        state = self._replica_states.pop(replica_id, None)
        if state is not None and self._fleet is not None:
            self._fleet.table.remove(state.url)

    def _relist(self) -> None:
        self._by_url = {state.url: state for state in self._replica_states.values()}
        if self._fleet is not None:
            self._all = self._fleet.endpoints(tuple(sorted(self._by_url)))

    def _addresses(self) -> dict[str, str]:
        """Replica → its node's address, where its engine publishes."""
        # Serve shows node and zone of a replica, but its address only inside.
        nodes = {
            state.url: getattr(getattr(state.replica, "_replica_info", None), "node_ip", None)
            for state in list(self._replica_states.values())
        }
        return {url: ip or "" for url, ip in nodes.items()}

    # Once a second while there is traffic, and once after it.

    def _tick_later(self) -> None:
        if not self._ticking and self._loop is not None:
            self._ticking = True
            self._loop.call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        cache = self.replica_queue_len_cache
        # What other routers said since is newer than what a replica said with its last answer.
        is_old = self._fleet is not None and self._fleet.hears_others
        for replica_id in self._replica_states:
            self._reported(replica_id, cache.get(replica_id), is_old)
        self._telemetry.report()
