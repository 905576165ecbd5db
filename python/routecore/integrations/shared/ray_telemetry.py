"""The metrics of `telemetry` in Ray's own registry; Ray exports them with the prefix `ray_`."""

import importlib
from collections.abc import Mapping
from typing import Any

from routecore.hold import Hold, RejectReason
from routecore.integrations.shared.telemetry import WAIT_BUCKETS, Monitor
from routecore.replicas import Replicas

_SECONDS = [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2e-2]


class RayTelemetry:
    """The metrics of one strategy of a host that runs on Ray.

    Args:
        strategy: Tag: the word of the strategy.
        tags: Others that name what it routes, such as the deployment.
    """

    def __init__(self, strategy: str, tags: Mapping[str, str]) -> None:
        metrics: Any = importlib.import_module("ray.util.metrics")
        self._gauge, self._counter = metrics.Gauge, metrics.Counter
        self._histogram = metrics.Histogram
        self._tags = {"strategy": strategy, **tags}
        self._decisions = self._made(
            metrics.Counter, "routecore_decisions", "Requests routed.", ("outcome",)
        )
        self._seconds = self._made(
            metrics.Histogram,
            "routecore_decision_seconds",
            "Time that one choice takes.",
            boundaries=_SECONDS,
        )
        self._in_flight = self._made(
            metrics.Gauge, "routecore_in_flight_requests", "Requests between sending and end."
        )
        self._expired = self._made(
            metrics.Counter,
            "routecore_leases_expired",
            "Requests that left the load because they never ended.",
        )
        self._outcomes = {name: {"outcome": name} for name in ("strategy", "fallback", "shadow")}
        self._monitor: Monitor | None = None
        self._reported = 0
        self._hold: Hold | None = None
        self._replicas: Replicas | None = None

    def _made(
        self, kind: Any, name: str, text: str, tags: tuple[str, ...] = (), **options: Any
    ) -> Any:
        made = kind(name, description=text, tag_keys=(*self._tags, *tags), **options)
        return made.set_default_tags(self._tags)

    def chosen(self, mode: str) -> None:
        """This process routes with the strategy, in that mode."""
        text = "1 in each process that routes with the strategy."
        self._made(self._gauge, "routecore_router", text, ("mode",)).set(1, tags={"mode": mode})

    def decided(self, seconds: float) -> None:
        """The strategy chose, in that time."""
        self._decisions.inc(tags=self._outcomes["strategy"])
        self._seconds.observe(seconds)

    def shadowed(self, seconds: float) -> None:
        """The strategy chose beside Serve, without effect."""
        self._decisions.inc(tags=self._outcomes["shadow"])
        self._seconds.observe(seconds)

    def fell_back(self) -> None:
        """The strategy failed and Serve's own rule chose."""
        self._decisions.inc(tags=self._outcomes["fallback"])

    def watch(self, monitor: Monitor) -> None:
        """The monitor whose figures `report` brings up to date."""
        self._monitor, self._reported = monitor, monitor.leases_expired

    def holds(self, hold: Hold) -> None:
        """The hold whose figures `report` brings up to date."""
        self._hold = hold
        self._waiting = self._made(
            self._gauge,
            "routecore_waiting_requests",
            "Requests that wait at the router until there is room for them.",
        )
        self._rejected = self._made(
            self._counter,
            "routecore_rejected_requests",
            "Requests that were not let wait, or not any longer, by the bound that was reached.",
            ("reason",),
        )
        self._waited = self._made(
            self._histogram,
            "routecore_waited_seconds",
            "Time that a request waited at the router for room, of those that went.",
            boundaries=list(WAIT_BUCKETS),
        )

    def admitted(self, waited: float) -> None:
        """The strategy chose, once there was room: after so many seconds."""
        self._decisions.inc(tags=self._outcomes["strategy"])
        self._waited.observe(waited)

    def rejected(self, reason: RejectReason) -> None:
        """The request was rejected, to come again later."""
        self._rejected.inc(tags={"reason": reason})

    def shares(self, replicas: Replicas | None) -> None:
        """What is heard of other routers, if anything, which `report` brings up to date."""
        if replicas is None:
            return
        self._replicas = replicas
        self._peers = self._made(
            self._gauge, "routecore_replica_peers", "Other routers that are heard now."
        )
        text = "Whether the channel to other routers is down, and this one on its own."
        self._is_down = self._made(self._gauge, "routecore_replica_channel_down", text)

    def report(self) -> None:
        """Bring requests in flight and expired leases up to date, and who waits in a hold."""
        if self._hold is not None:
            self._waiting.set(self._hold.counts.waiting)
        if self._replicas is not None:
            self._peers.set(len(self._replicas.peers))
            self._is_down.set(int(self._replicas.is_down))
        if self._monitor is None:
            return
        self._in_flight.set(self._monitor.in_flight)
        expired = self._monitor.leases_expired
        if expired > self._reported:
            self._expired.inc(expired - self._reported)
            self._reported = expired
