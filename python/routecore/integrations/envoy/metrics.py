"""A picker's own metrics, beside those of all hosts."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric

from routecore.integrations.envoy.endpoints.pool import Pool

_STATUSES = (413, 429, 503)


class Counters:
    """Streams and refusals, and the endpoints of the pool.

    Args:
        pool: Whose endpoints are shown.
        registry: Where; prometheus_client's default if left out.
    """

    def __init__(self, pool: Pool, registry: CollectorRegistry | None = None) -> None:
        self._pool = pool
        self.open: int = 0
        self.registry: CollectorRegistry = REGISTRY if registry is None else registry
        refused = Counter(
            "routecore_picker_refused_requests",
            "Requests that the picker answered itself, by status.",
            ["status"],
            registry=self.registry,
        )
        # Each status always: a series that comes and goes cannot be alerted on.
        self._refused = {status: refused.labels(str(status)) for status in _STATUSES}
        self._counter = refused
        self.registry.register(self)

    def refused(self, status: int) -> None:
        """A request was answered by us."""
        self._refused[status].inc()

    def collect(self) -> Iterator[Metric]:
        """Read when the registry is scraped, so that requests pay nothing."""
        yield GaugeMetricFamily(
            "routecore_picker_streams", "Streams that gateways have open.", value=self.open
        )
        family = GaugeMetricFamily(
            "routecore_picker_endpoints",
            "Endpoints that there are, by whether requests may go there.",
            labels=["ready"],
        )
        ready = len(self._pool.ready)
        family.add_metric(["true"], ready)
        family.add_metric(["false"], len(self._pool) - ready)
        yield family

    def close(self) -> None:
        """Show nothing any more."""
        self.registry.unregister(self)
        self.registry.unregister(self._counter)
