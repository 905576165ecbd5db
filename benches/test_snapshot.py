"""`get_request_stats` at 64 endpoints: the host calls it before every decision."""

import pytest
from fleets import endpoints_of
from naive_monitor import NaiveMonitor
from pytest_benchmark.fixture import BenchmarkFixture
from routecore import RequestStatsMonitor

WINDOW = 60.0


@pytest.mark.parametrize("who", ["core", "twin"])
@pytest.mark.parametrize("rate", [0, 100, 1000])
def test_get_request_stats(benchmark: BenchmarkFixture, rate: int, who: str) -> None:
    benchmark.group = f"get_request_stats, {rate} req/s"
    monitor = RequestStatsMonitor(WINDOW) if who == "core" else NaiveMonitor(WINDOW)
    urls = [endpoint.url for endpoint in endpoints_of(64)]
    for i in range(int(rate * WINDOW)):
        url, name, now = urls[i % 64], str(i), i / rate
        monitor.on_new_request(url, name, now)
        monitor.on_request_response(url, name, now)
        monitor.on_request_complete(url, name, now)
        # The twin keeps emptied ids, and would look through them at every arrival.
        if isinstance(monitor, NaiveMonitor):
            monitor.open.clear()
    benchmark(monitor.get_request_stats, WINDOW)
