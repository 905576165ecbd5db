"""What verl calls in the router's actor, one call at a time."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from routecore.endpoints.stats import EndpointInfo
from routecore.integrations.shared.fleet import Counts, Fleet
from routecore.integrations.verl import metrics
from routecore.integrations.verl.open_calls import MAX_OPEN, OpenCalls
from routecore.integrations.verl.settings import Settings

_log = logging.getLogger("routecore.verl")


class RoutecoreRouter:
    """verl's rollout router with a routecore strategy; verl makes a Ray actor of it.

    A call is one turn of one sample: acquired, generated, released. Each is routed by its token
    ids, so that the samples of a prompt find its prefix, and the turns of a conversation theirs,
    as far as load allows.

    Args:
        servers: Server id → handle; more may come with `add_servers`.
        router_kwargs: The router file: `strategy`, parameters of the strategy, and the settings
            of `routecore.integrations.verl.settings.Settings`.
        clock: Seconds.
        telemetry: Where decisions are counted; Ray's metrics in an actor, Prometheus' elsewhere.

    Raises:
        RouteError: A key of the file is wrong; names it.
    """

    def __init__(
        self,
        servers: Mapping[str, Any],
        router_kwargs: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        telemetry: Counts | None = None,
    ) -> None:
        settings = Settings.of_file(router_kwargs or {})
        counts = metrics.made(settings.strategy) if telemetry is None else telemetry
        self._fleet = Fleet(settings, "rollout", counts, _log, clock=clock)
        self._report = metrics.reporter(counts, self._fleet.monitor)
        self._clock, self._idle_for = clock, settings.forget_after_idle
        self._idle_since: float | None = None
        self._handles: dict[str, Any] = {}
        self._open = OpenCalls()
        self._endpoints: tuple[EndpointInfo, ...] = ()
        self.add_servers(servers)

    def require_acquire_fields(self) -> list[str]:
        """What of a call verl has to send: its token ids."""
        return ["prompt_ids"]

    def require_release_fields(self) -> list[str]:
        """What it has to send at its end: whose it was."""
        return ["request_id"]

    def acquire_server(
        self, request_id: str, prompt_ids: Sequence[int] | None = None, **_more: Any
    ) -> tuple[str, Any]:
        """A server for the next turn of a conversation.

        Args:
            request_id: Of the conversation.
            prompt_ids: Token ids of all so far; None: load alone decides.

        Returns:
            Server id and handle.

        Raises:
            RuntimeError: There are no servers. verl reads the text, and may try again.
        """
        if not self._endpoints:
            raise RuntimeError("No available servers in load balancer")
        now, request = self._clock(), str(request_id)
        self._see_new_weights(now)
        server = self._choose(request, prompt_ids)
        if self._open.total >= MAX_OPEN:
            self._give_up_oldest(now)
        self._fleet.monitor.on_new_request(server, self._open.add(server, request), now)
        self._report()
        return server, self._handles[server]

    def release_server(self, server_id: str, request_id: str | None = None, **_more: Any) -> None:
        """The call is over, however it ended; verl does not tell. Again: no change."""
        name = self._open.take(server_id, None if request_id is None else str(request_id))
        if name is None:
            return
        now = self._clock()
        self._fleet.monitor.on_request_complete(server_id, name, now)
        if not self._open.total:
            self._idle_since = now
            self._report(True)

    def add_servers(self, servers: Mapping[str, Any]) -> None:
        """Servers came. One that has another handle than before was replaced."""
        new = sum(self._handles.get(server, _NOBODY) != servers[server] for server in servers)
        for server, handle in servers.items():
            if server in self._handles and self._handles[server] != handle:
                self._drop(server)
            self._handles[server] = handle
            self._open.add_server(server)
            self._fleet.table.add(server)
        self._relist()
        _log.info("routecore: %d servers, %d of them new", len(self._handles), new)

    def remove_servers(self, server_ids: Sequence[str]) -> None:
        """Servers left, with what they worked on and had in their caches."""
        for server in server_ids:
            self._drop(server)
        self._relist()
        _log.info("routecore: %d servers left", len(self._handles))

    def clear_sticky_cache(self) -> dict[str, Any]:
        """New weights, or servers that shall share the load anew: no prompt is in any cache.

        What was learned of the servers' speed stays.

        Returns:
            `cleared_entries`, the prompt blocks that were known, and `server_loads`.
        """
        held = sum(self._fleet.table.core.held(server)[0] for server in self._handles)
        self._fleet.monitor.forget()
        return {"cleared_entries": held, "server_loads": self._open.counts()}

    def get_all_servers(self) -> list[str]:
        """Ids of all servers."""
        return list(self._handles)

    def get_inflight_count(self, server_id: str) -> int:
        """Calls in flight on one server; 0 for one that is not known."""
        return self._open.counts().get(server_id, 0)

    def get_total_inflight(self) -> int:
        """Calls in flight on all servers."""
        return self._open.total

    def get_status(self) -> dict[str, Any]:
        """Calls in flight by server and in total, and who is there."""
        return {
            "servers": self._open.counts(),
            "total_inflight": self._open.total,
            "active_servers": len(self._handles),
            "registered_handles": list(self._handles),
            "strategy": self._fleet.settings.strategy,
            "fallbacks": self._fleet.faults,
        }

    def _choose(self, request: str, prompt_ids: Sequence[int] | None) -> str:
        fleet = self._fleet
        try:
            body = None if prompt_ids is None else {"prompt": _plain(prompt_ids)}
            if fleet.caches is not None:
                fleet.caches.follow(self._addresses)
            key = fleet.router.session_key
            return fleet.choose(self._endpoints, {key: request} if key else None, body)
        except Exception as error:  # a rollout is worth more than its routing
            fleet.fault(error)
            counts = self._open.counts()
            return min(counts, key=counts.__getitem__)

    def _see_new_weights(self, now: float) -> None:
        """A synchronous trainer tells nobody of its updates: it stops, and goes on later."""
        since, self._idle_since = self._idle_since, None
        if since is not None and 0 < self._idle_for <= now - since:
            self._fleet.monitor.forget()

    def _give_up_oldest(self, now: float) -> None:
        found = self._open.oldest()
        name = None if found is None else self._open.take(*found)
        if found is not None and name is not None:
            self._fleet.monitor.on_request_failed(found[0], name, now, "client")

    def _drop(self, server: str) -> None:
        if self._handles.pop(server, _NOBODY) is not _NOBODY:
            self._open.drop_server(server)
            self._fleet.table.remove(server)

    def _relist(self) -> None:
        self._endpoints = self._fleet.endpoints(tuple(sorted(self._handles)))

    def _addresses(self) -> dict[str, str]:
        return {server: server for server in self._handles}


_NOBODY = object()


def _plain(prompt_ids: Any) -> Any:
    """Ids as a list; arrays and tensors have a method for it."""
    if isinstance(prompt_ids, list):
        return prompt_ids
    to_list = getattr(prompt_ids, "tolist", None)
    return list(prompt_ids) if to_list is None else to_list()
