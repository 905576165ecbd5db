"""The monitor's figures against the naive twin, and loads that never leak."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_monitor import NaiveMonitor
from routecore import EndpointInfo, LeastConnectionsRouter, RequestStatsMonitor, RouteError
from routecore.endpoints.monitor import SingletonMeta
from routecore.endpoints.table import EndpointTable

A, B = "http://a", "http://b"


def monitor_of(span: float = 60.0, **options: Any) -> RequestStatsMonitor:
    SingletonMeta._instances.clear()
    return RequestStatsMonitor(span, table=EndpointTable(), **options)


STEPS = st.lists(
    st.tuples(st.sampled_from("nnnrrcfs"), st.integers(0, 9), st.floats(0, 20)), max_size=80
)
CALLS = {
    "n": "on_new_request",
    "r": "on_request_response",
    "c": "on_request_complete",
    "f": "on_request_failed",
}


@given(STEPS, st.floats(0.5, 50))
def test_windows_equal_the_naive_twin(steps: list[tuple[str, int, float]], span: float) -> None:
    # In any order at all: double ends, ends without a start, ids that come back elsewhere.
    monitor, twin = monitor_of(span, lease_timeout=1e9), NaiveMonitor(span)
    now = 0.0
    for kind, number, wait in steps:
        now += wait
        url, name = (A, B)[number % 2], str(number // 2)
        # One id twice at once on one endpoint has tests of its own.
        if kind in CALLS and not (kind == "n" and twin.open.get((url, name))):
            for each in (monitor, twin):
                getattr(each, CALLS[kind])(url, name, now)
        ours, naive = monitor.get_request_stats(now), twin.get_request_stats(now)
        assert set(ours) == set(naive)
        for url, row in naive.items():
            for field, value in vars(row).items():
                assert getattr(ours[url], field) == pytest.approx(value, abs=1e-6), field
                assert value >= 0 or value == -1


def test_every_way_to_end_leaves_no_load() -> None:
    monitor = monitor_of(lease_timeout=100.0)
    monitor.on_new_request(A, "served", 0.0)
    monitor.on_request_response(A, "served", 1.0)
    monitor.on_new_request(A, "failed", 0.0)
    monitor.on_new_request(A, "no first token", 0.0)
    monitor.on_new_request(A, "gone", 0.0)
    monitor.on_new_request(A, "moved", 0.0)
    assert monitor.in_flight == 5
    monitor.on_new_request(B, "moved", 1.0)
    monitor.on_request_complete(B, "moved", 2.0)
    for _ in range(2):
        monitor.on_request_complete(A, "served", 2.0)
        monitor.on_request_failed(A, "failed", 2.0)
        monitor.on_request_complete(A, "no first token", 2.0)
        monitor.on_request_complete("http://nobody", "x", 2.0)
    assert (monitor.in_flight, monitor.leases_expired) == (1, 0)
    stats = monitor.get_request_stats(101.0)
    assert (monitor.in_flight, monitor.leases_expired) == (0, 1)
    assert {(s.in_prefill_requests, s.in_decoding_requests) for s in stats.values()} == {(0, 0)}
    assert stats[A].finished_requests == 2


def test_one_id_used_twice_at_once_counts_twice() -> None:
    monitor = monitor_of()
    for _ in range(2):
        monitor.on_new_request(A, "x", 0.0)
    assert monitor.get_request_stats(0.0)[A].in_prefill_requests == 2
    monitor.on_request_complete(A, "x", 1.0)
    assert monitor.get_request_stats(1.0)[A].in_prefill_requests == 1


def test_a_failover_releases_the_waiting_one_of_two_namesakes() -> None:
    monitor = monitor_of()
    for _ in range(2):
        monitor.on_new_request(A, "x", 0.0)
    monitor.on_request_response(A, "x", 1.0)
    monitor.on_new_request(B, "x", 2.0)
    stats = monitor.get_request_stats(2.0)
    assert (stats[A].in_prefill_requests, stats[A].in_decoding_requests) == (0, 1)


def test_a_burst_in_one_tick_spreads() -> None:
    monitor = monitor_of()
    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(8)]
    router, stats = LeastConnectionsRouter(seed=1), monitor.get_request_stats(0.0)
    urls = [router.route_request(endpoints, {}, stats, None) for _ in range(16)]
    assert sorted(urls) == sorted(2 * [e.url for e in endpoints])


def test_construction_rules() -> None:
    SingletonMeta._instances.clear()
    with pytest.raises(ValueError, match="sliding_window_size"):
        RequestStatsMonitor()
    with pytest.raises(ValueError, match="lease_timeout"):
        RequestStatsMonitor(60, lease_timeout=0)
    first = RequestStatsMonitor(30.0)
    assert RequestStatsMonitor() is first and first.sliding_window_size == 30.0


def test_eight_threads_count_exactly() -> None:
    monitor = monitor_of()
    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(4)]
    router = LeastConnectionsRouter(seed=1)

    def work(thread: int) -> None:
        for i in range(500):
            stats = monitor.get_request_stats(1.0)
            url = router.route_request(endpoints, {}, stats, None)
            monitor.on_new_request(url, f"{thread}-{i}", 1.0)
            monitor.on_request_response(url, f"{thread}-{i}", 1.0)
            monitor.on_request_complete(url, f"{thread}-{i}", 1.0)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    stats = monitor.get_request_stats(1.0)
    assert sum(s.finished_requests for s in stats.values()) == 4000
    assert monitor.in_flight == 0
    assert monitor.table.column("in_flight").sum() == 0


def test_the_view_is_a_mapping() -> None:
    monitor = monitor_of()
    monitor.table.add(B)
    monitor.on_new_request(A, "x", 0.0)
    view = monitor.get_request_stats(2.0)
    assert (dict(view), len(view), A in view, B in view) == ({A: view[A]}, 1, True, False)
    assert view.get(B) is None and view[A].uptime == 2.0
    with pytest.raises(KeyError):
        view[B]


BAD_ENDS: list[dict[str, Any]] = [
    {"status": "500"},
    {"status": -1},
    {"status": 2**70},
    {"status": 503, "retry_after": "7"},
    {"timestamp": "now"},
    {"timestamp": None, "status": 200},
    {"reason": "nope"},
    {"reason": 3},
    {"reason": "\ud800"},
    {"reason": "busy", "retry_after": [1]},
    {"reason": "connect", "timestamp": [1.0]},
]


@pytest.mark.parametrize("said", BAD_ENDS, ids=str)
def test_an_end_that_cannot_be_read_is_an_error_and_an_end(said: dict[str, Any]) -> None:
    monitor = monitor_of()
    said = {"timestamp": 101.0, **said}
    monitor.on_new_request("http://a", "r", 100.0)
    report = monitor.on_request_failed if "reason" in said else monitor.on_request_complete
    with pytest.raises((RouteError, TypeError, ValueError, OverflowError)):
        report("http://a", "r", **said)
    assert monitor.in_flight == 0
    assert monitor.standing("http://a") is None
