"""Eight threads on one router: choices counted exactly, whatever else changes meanwhile."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    EngineStats,
    LeastConnectionsRouter,
    RequestStatsMonitor,
    RoundRobinRouter,
)
from routecore.endpoints.table import EndpointTable

THREADS = 8


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Threads meet in the middle of things far more often than by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], None]) -> None:
    """Run it in all threads; none may fail or hang."""
    failed: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(t,)) for t in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failed, failed


def fleet(count: int) -> list[EndpointInfo]:
    """Endpoints `http://e0` and on."""
    return [EndpointInfo(url=f"http://e{i}") for i in range(count)]


def test_round_robin_turns_are_exact() -> None:
    router, endpoints = RoundRobinRouter(), fleet(5)
    chosen: list[Counter[str]] = [Counter() for _ in range(THREADS)]

    def work(thread: int) -> None:
        for _ in range(500):
            chosen[thread][router.route_request(endpoints, {}, {}, None)] += 1

    in_threads(work)
    assert sum(chosen, Counter()) == Counter({e.url: THREADS * 500 // 5 for e in endpoints})


@pytest.mark.parametrize("name", list(ROUTERS))
def test_every_choice_counts_once_as_load(name: str) -> None:
    table = EndpointTable()
    stats: Any = RequestStatsMonitor(60.0, table=table).get_request_stats(0.0)
    router: Any = ROUTERS[name](seed=1)
    lists = [fleet(5), fleet(3), fleet(300), list(reversed(fleet(5)))]

    def work(thread: int) -> None:
        for i in range(200):
            body = {"prompt": f"{thread} {i}", "x-session-id": str(i)}
            router.route_request(lists[i % 4], {}, stats, None, body)

    in_threads(work)
    assert table.column("in_flight").sum() == THREADS * 200


def test_endpoints_that_vanish_between_list_and_choice() -> None:
    table = EndpointTable()
    stats: Any = RequestStatsMonitor(60.0, table=table).get_request_stats(0.0)
    router, endpoints = LeastConnectionsRouter(seed=1), fleet(6)
    urls = {e.url for e in endpoints}

    def work(thread: int) -> None:
        for i in range(300):
            if thread % 2:
                table.remove(f"http://e{i % 6}")
                table.add(f"http://other-{i % 3}")
            else:
                assert router.route_request(endpoints, {}, stats, None) in urls

    in_threads(work)
    assert table.rows < 20


def test_lists_and_stats_that_change_under_the_plain_path() -> None:
    router, shared = LeastConnectionsRouter(seed=1), fleet(400)
    engine = {e.url: EngineStats(num_running_requests=1) for e in shared}

    def work(thread: int) -> None:
        for i in range(40):
            shared[(thread * 40 + i) % 400] = EndpointInfo(url=f"http://{thread}-{i}")
            engine[f"http://{thread}-{i}"] = EngineStats()
            assert router.route_request(shared, engine, {}, None).startswith("http://")

    in_threads(work)
    assert router.route_request(shared, engine, {}, None) in {e.url for e in shared}
