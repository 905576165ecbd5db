"""Where decisions are counted: in Ray's metrics inside an actor, else in Prometheus' client."""

import sys
import time
from collections.abc import Callable

from routecore.integrations.shared import telemetry
from routecore.integrations.shared.fleet import Counts
from routecore.integrations.shared.ray_telemetry import RayTelemetry
from routecore.integrations.shared.telemetry import Monitor

_REPORT_SECONDS = 1.0


def made(strategy: str) -> Counts:
    """The counters of a strategy."""
    ray = sys.modules.get("ray")  # where nobody has imported it, this is no actor
    if ray is not None and ray.is_initialized():
        return RayTelemetry(strategy, {"host": "verl"})
    return telemetry.Telemetry("verl", strategy)


def reporter(counts: Counts, monitor: Monitor) -> Callable[..., None]:
    """What brings requests in flight up to date, to be called often; True: now in any case."""
    if not isinstance(counts, RayTelemetry):
        telemetry.watch(monitor)  # read when they are scraped
        return lambda _now=False: None
    counts.watch(monitor)
    counts.chosen("active")
    next_report = 0.0

    def report(now: bool = False) -> None:
        nonlocal next_report
        clock = time.monotonic()
        if now or clock >= next_report:
            next_report = clock + _REPORT_SECONDS
            counts.report()

    return report
