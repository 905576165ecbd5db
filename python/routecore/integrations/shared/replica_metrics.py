"""What is heard of other routers, as Prometheus metrics: read when the registry is collected."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from routecore.replicas.replicas import LIVING, Replicas, Traffic

_SUMMED = [name for name in Traffic.__struct_fields__ if name not in ("delay", "ignored")]


class ReplicaMetrics:
    """Shows the replicas of this process; nothing where there are none."""

    def collect(self) -> Iterator[Metric]:
        groups: dict[str, list[Replicas]] = {}
        for replicas in list(LIVING):
            groups.setdefault(replicas.group, []).append(replicas)
        if groups:
            yield from _gauges(groups)
            yield from _counters(groups)


def _gauges(groups: dict[str, list[Replicas]]) -> Iterator[Metric]:
    peers = GaugeMetricFamily(
        "routecore_replica_peers", "Other routers that are heard now.", labels=["group"]
    )
    age = GaugeMetricFamily(
        "routecore_replica_age_seconds",
        "Time since the last word of each other router that is heard.",
        labels=["group", "peer"],
    )
    down = GaugeMetricFamily(
        "routecore_replica_channel_down",
        "Whether the channel to other routers is down, and this one on its own.",
        labels=["group"],
    )
    doubted = GaugeMetricFamily(
        "routecore_replica_doubted_endpoints",
        "Endpoints that get one request at a time because they fail at another router.",
        labels=["group"],
    )
    for group, living in groups.items():
        doubted.add_metric([group], sum(replicas.hints.doubted for replicas in living))
        seen = {peer.origin: peer.age for replicas in living for peer in replicas.peers}
        peers.add_metric([group], len(seen))
        down.add_metric([group], any(replicas.is_down for replicas in living))
        for origin, seconds in seen.items():
            age.add_metric([group, origin], seconds)
    yield from (peers, age, down, doubted)


def _counters(groups: dict[str, list[Replicas]]) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "routecore_replica_messages",
        "Messages between routers: sent, and those of others that counted.",
        labels=["group", "direction"],
    )
    size = CounterMetricFamily(
        "routecore_replica_bytes",
        "Bytes of all messages between routers that were sent and that came.",
        labels=["group", "direction"],
    )
    conflicts = CounterMetricFamily(
        "routecore_replica_conflicts",
        "Messages of a router that has the name of another one.",
        labels=["group"],
    )
    ignored = CounterMetricFamily(
        "routecore_replica_ignored_messages",
        "Messages of other routers that did not count, by reason.",
        labels=["group", "reason"],
    )
    placements = CounterMetricFamily(
        "routecore_replica_placements",
        "Prefixes sent to other routers and heard of them, continuing unknown ones, or too many.",
        labels=["group", "outcome"],
    )
    hints = CounterMetricFamily(
        "routecore_replica_hints",
        "What became of others' words on endpoints that fail.",
        labels=["group", "outcome"],
    )
    for group, living in groups.items():
        for outcome in ("confirmed", "refuted", "faded", "passed_over"):
            hints.add_metric([group, outcome], sum(getattr(r.hints, outcome) for r in living))
        total: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for traffic in (replicas.traffic for replicas in living):
            reasons.update(traffic.ignored)
            total.update({name: getattr(traffic, name) for name in _SUMMED})
        for direction in ("sent", "heard"):
            messages.add_metric([group, direction], total[direction])
            size.add_metric([group, direction], total[f"{direction}_bytes"])
        conflicts.add_metric([group], total["conflicts"])
        for reason in reasons:
            ignored.add_metric([group, reason], reasons[reason])
        for outcome in ("sent", "heard", "unknown", "lost"):
            placements.add_metric([group, outcome], total[f"placements_{outcome}"])
    yield from (messages, size, conflicts, ignored, placements, hints)
