"""Prometheus metrics of our decisions, in whatever registry the host scrapes."""

from collections import Counter as Counted
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from routecore.endpoints.health import REASONS
from routecore.hold import REJECT_REASONS, Hold, RejectReason
from routecore.integrations.shared.decision_counts import AllDecisionCounts, all_decision_counts
from routecore.integrations.shared.replica_metrics import ReplicaMetrics

# Of waits for room: from none at all to the longest that there is by default.
WAIT_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Monitor(Protocol):
    """What is read of a request monitor when the host is scraped.

    One that keeps account of its index's predictions has them as `predictions`, with
    `predicted_tokens` and `over_predicted`; one that leaves endpoints alone that fail has
    `endpoints_out`, how many by reason, and `ejections`.
    """

    @property
    def in_flight(self) -> int:
        """Requests between their report and their end."""
        ...

    @property
    def leases_expired(self) -> int:
        """Requests that left the load because they never ended."""
        ...


class _Families(NamedTuple):
    decisions: AllDecisionCounts
    actual: Counter
    waited: Histogram
    rejected: Counter
    load: "_Load"


class _Load:
    """Reads the monitors when the registry is collected, so that requests pay nothing."""

    def __init__(self) -> None:
        self.monitors: WeakSet[Any] = WeakSet()
        self.holds: WeakKeyDictionary[Hold, tuple[str, str]] = WeakKeyDictionary()

    def collect(self) -> Iterator[Metric]:
        monitors = list(self.monitors)
        yield GaugeMetricFamily(
            "routecore_in_flight_requests",
            "Requests between their choice and their end, as the router counts them.",
            value=sum(monitor.in_flight for monitor in monitors),
        )
        yield CounterMetricFamily(
            "routecore_leases_expired",
            "Requests that left the load because they never ended.",
            value=sum(monitor.leases_expired for monitor in monitors),
        )
        out: Counted[str] = Counted()
        for monitor in monitors:
            out.update(getattr(monitor, "endpoints_out", {}))
        # Each reason always: a series that comes and goes cannot be alerted on.
        family = GaugeMetricFamily(
            "routecore_endpoints_out",
            "Endpoints that are left alone because their requests fail, by reason.",
            labels=["reason"],
        )
        for reason in REASONS:
            family.add_metric([reason], out[reason])
        yield family
        yield CounterMetricFamily(
            "routecore_ejections",
            "Times that an endpoint was left alone because its requests failed.",
            value=sum(getattr(monitor, "ejections", 0) for monitor in monitors),
        )
        if self.holds:
            waiting: Counted[tuple[str, str]] = Counted()
            for hold, labels in list(self.holds.items()):
                waiting[labels] += hold.counts.waiting
            family = GaugeMetricFamily(
                "routecore_waiting_requests",
                "Requests that wait at the router until there is room for them.",
                labels=["host", "strategy"],
            )
            for labels, count in waiting.items():
                family.add_metric(labels, count)
            yield family
        known = [monitor.predictions for monitor in monitors if hasattr(monitor, "predictions")]
        if known:
            yield CounterMetricFamily(
                "routecore_predicted_hit_tokens",
                "Prompt tokens expected in the cache, where the engine reported what it found.",
                value=sum(predictions.predicted_tokens for predictions in known),
            )
            yield CounterMetricFamily(
                "routecore_over_predicted_requests",
                "Of these requests, those that found less than expected by more than a block.",
                value=sum(predictions.over_predicted for predictions in known),
            )


@cache
def _families(registry: CollectorRegistry) -> _Families:
    """Made once per registry: it refuses a name that it knows."""
    labels = ["host", "strategy"]
    load = _Load()
    registry.register(load)
    registry.register(ReplicaMetrics())
    return _Families(
        all_decision_counts(registry),
        Counter(
            "routecore_actual_hit_tokens",
            "Prompt tokens that engines report as read from their prefix cache.",
            labels,
            registry=registry,
        ),
        Histogram(
            "routecore_waited_seconds",
            "Time that a request waited at the router for room, of those that went.",
            labels,
            buckets=WAIT_BUCKETS,
            registry=registry,
        ),
        Counter(
            "routecore_rejected_requests",
            "Requests that were not let wait, or not any longer, by the bound that was reached.",
            [*labels, "reason"],
            registry=registry,
        ),
        load,
    )


class Telemetry:
    """The metrics of one strategy behind one host.

    Args:
        host: Label: `production_stack`, `ray_serve`, `litellm`.
        strategy: Label: the word of the strategy.
        registry: Where the host's own metrics are; prometheus_client's default if left out.
    """

    def __init__(self, host: str, strategy: str, registry: CollectorRegistry | None = None) -> None:
        families = self._families = _families(REGISTRY if registry is None else registry)
        labels = self._labels = (host, strategy)
        self._decisions = families.decisions.of(host, strategy)
        self._actual = families.actual.labels(*labels)

    def decided(self, seconds: float) -> None:
        """The strategy chose, in that time."""
        self._decisions.chose(seconds)

    def shadowed(self, seconds: float) -> None:
        """The strategy chose beside the host, without effect."""
        self._decisions.shadowed(seconds)

    def fell_back(self) -> None:
        """The strategy failed and the request was routed without it."""
        self._decisions.count("fallback")

    def holds(self, hold: Hold) -> None:
        """Show who waits there, for as long as it lives, and what became of them."""
        families, labels = self._families, self._labels
        families.load.holds[hold] = labels
        self._waited = families.waited.labels(*labels)
        # Each reason always: a series that comes and goes cannot be alerted on.
        self._rejected = {
            reason: families.rejected.labels(*labels, reason) for reason in REJECT_REASONS
        }

    def admitted(self, waited: float) -> None:
        """The strategy chose, once there was room: after so many seconds."""
        self._decisions.count("strategy")
        self._waited.observe(waited)

    def rejected(self, reason: RejectReason) -> None:
        """The request was rejected, to come again later."""
        self._rejected[reason].inc()

    def used(self, cached: float) -> None:
        """Prompt tokens that the engine reports as read from its cache."""
        self._actual.inc(max(0.0, cached))


def watch(monitor: Monitor, registry: CollectorRegistry | None = None) -> None:
    """Show the monitor's requests in flight and expired leases for as long as it lives."""
    _families(REGISTRY if registry is None else registry).load.monitors.add(monitor)
