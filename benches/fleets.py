"""What the benches route over, made outside the timed loop."""

from typing import Any

from routecore import EndpointInfo, EngineStats, RequestStatsMonitor

SIZES = [2, 8, 64, 512, 4096]


def endpoints_of(count: int) -> list[EndpointInfo]:
    """So many endpoints."""
    return [EndpointInfo(url=f"http://engine-{i}:8000") for i in range(count)]


def engine_stats_of(endpoints: list[EndpointInfo]) -> dict[str, EngineStats]:
    """Uneven loads, the same in every run."""
    return {
        e.url: EngineStats(
            num_running_requests=i * 7919 % 97,
            num_queuing_requests=i * 104729 % 31,
            gpu_cache_usage_perc=(i * 31 % 100) / 100,
            gpu_prefix_cache_hit_rate=(i * 17 % 100) / 100,
        )
        for i, e in enumerate(endpoints)
    }


def resident_stats_of(endpoints: list[EndpointInfo]) -> Any:
    """The view of a monitor that has one request or more on each endpoint."""
    monitor = RequestStatsMonitor(60.0)
    for i, endpoint in enumerate(endpoints):
        for k in range(1 + i * 7919 % 7):
            monitor.on_new_request(endpoint.url, f"{i}-{k}", 0.0)
    return monitor.get_request_stats(0.0)
