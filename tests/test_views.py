"""What monitors hand out is a mapping, whatever happens to the table meanwhile."""

import threading

from routecore import RequestStatsMonitor
from routecore.endpoints.table import EndpointTable


def seen(*urls: str) -> RequestStatsMonitor:
    """A monitor that saw a request on each."""
    monitor = RequestStatsMonitor(60.0, table=EndpointTable())
    for url in urls:
        monitor.on_new_request(url, url, 0.0)
    return monitor


def test_a_view_that_was_iterated_is_a_snapshot() -> None:
    monitor = seen("a", "b")
    view = monitor.get_request_stats(1.0)
    names = iter(view)
    monitor.table.remove("a")
    monitor.table.remove("b")
    assert {name: view[name].in_prefill_requests for name in names} == {"a": 1, "b": 1}
    assert (len(view), "a" in view, "c" in view, view.get("c")) == (2, True, False, None)
    assert dict(monitor.get_request_stats(1.0)) == {}


def test_a_look_up_alone_reads_the_table_as_it_is() -> None:
    monitor = seen("a")
    view = monitor.get_request_stats(1.0)
    monitor.on_new_request("a", "2", 1.0)
    assert view["a"].in_prefill_requests == 2


def test_copying_never_raises_while_endpoints_come_and_go() -> None:
    monitor = seen(*map(str, range(50)))
    stop = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            monitor.table.remove(str(n % 50))
            monitor.on_new_request(str((n + 25) % 50), str(n), 1.0)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(2000):
            dict(monitor.get_request_stats(1.0))
    finally:
        stop.set()
        thread.join()
