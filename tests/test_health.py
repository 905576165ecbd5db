"""Endpoints that fail: who is out, when it is tried, how it comes back, whatever the strategy."""

import logging
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_health import NaiveHealth
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    HealthPolicy,
    RequestStatsMonitor,
    RouteError,
)

STEADY = HealthPolicy(jitter=0.0, seed=1)
STRATEGIES = [name for name in ROUTERS if name != "prefill_decode"]
BODY = {"model": "m", "prompt": "a prompt " * 50, "user": "u"}


def monitor_of(policy: HealthPolicy = STEADY) -> RequestStatsMonitor:
    """A monitor with a table of its own."""
    made: RequestStatsMonitor = type.__call__(
        RequestStatsMonitor, 60.0, table=EndpointTable(), health=policy
    )
    return made


def router_of(name: str) -> Any:
    """A router of its own."""
    more = {"weights": {"in_flight": 1.0}} if name == "weighted_score" else {}
    return type.__call__(ROUTERS[name], seed=3, **more)


class Traffic:
    """Open-loop requests over endpoints whose answers take so long, or fail at once."""

    def __init__(self, name: str, n: int, *, plain: bool = False, seconds: float = 0.4) -> None:
        self.monitor, self.router = monitor_of(), router_of(name)
        self.endpoints = tuple(EndpointInfo(url=f"http://e{i}") for i in range(n))
        self.plain, self.seconds, self.now, self.count = plain, seconds, 1_000.0, 0
        self.late: list[tuple[float, str, str]] = []
        self.failed = 0

    def route(self, body: Any = None) -> str:
        """One choice."""
        stats = self.monitor.get_request_stats(self.now)
        # With stats that only engines have, not in our table, the strategies read plain objects.
        engine = {e.url: {} for e in self.endpoints} if self.plain else {}
        url: str = self.router.route_request(self.endpoints, engine, stats, None, body or BODY)
        return url

    def run(self, seconds: float, rate: float, dead: Any = (), reason: Any = "status") -> Any:
        """So much traffic; how many requests each endpoint got."""
        got: Counter[str] = Counter()
        for _ in range(int(seconds * rate)):
            self.now += 1 / rate
            while self.late and self.late[0][0] <= self.now:
                at, url, name = self.late.pop(0)
                self.monitor.on_request_response(url, name, at)
                self.monitor.on_request_complete(url, name, at)
            url, self.count = self.route(), self.count + 1
            name = str(self.count)
            got[url] += 1
            self.monitor.on_new_request(url, name, self.now)
            if url not in dead:
                self.late.append((self.now + self.seconds, url, name))
            elif isinstance(reason, int):
                self.failed += 1
                self.monitor.on_request_response(url, name, self.now + 0.002)
                self.monitor.on_request_complete(url, name, self.now + 0.002, status=reason)
            else:
                self.failed += 1
                self.monitor.on_request_failed(url, name, self.now + 0.002, reason)
        return got


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("plain", [False, True])
def test_a_sick_endpoint_gets_probes_and_is_even_again_seconds_after(
    name: str, plain: bool
) -> None:
    traffic = Traffic(name, 4, plain=plain)
    if name == "session_affinity":
        traffic.router.session_key = None
    traffic.run(5, 40)
    sick = traffic.run(6, 40, {"http://e1"}, 500)
    assert sick["http://e1"] <= 15, sick
    traffic.run(10, 40)
    assert traffic.monitor.standing("http://e1") is None
    assert traffic.monitor.endpoints_out == {}
    if name in ("least_connections", "round_robin", "power_of_two", "random"):
        after = traffic.run(10, 40)
        assert 0.18 <= after["http://e1"] / 400 <= 0.32, after


@pytest.mark.parametrize("reason", ["connect", "status", "busy", "timeout", "broken", "unknown"])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_whatever_it_fails_by_and_however_many_there_are(reason: Any, n: int) -> None:
    traffic = Traffic("least_connections", n, seconds=3.0)
    got = traffic.run(30, 10, {"http://e0"}, reason)
    assert got["http://e0"] <= 12, got
    standing = traffic.monitor.standing("http://e0")
    assert standing is not None and standing.state == "out" and standing.reason == reason
    assert standing.since < 1_002.0 and standing.until is not None and standing.until > 1_020.0


def test_where_few_requests_come_most_still_are_served() -> None:
    traffic = Traffic("least_connections", 2)
    traffic.run(200, 0.2, {"http://e1"}, "connect")
    got = traffic.run(2_000, 0.2, {"http://e1"}, "connect")
    assert got["http://e1"] <= 0.05 * 400, got


def test_all_die_and_come_back_without_an_error_of_ours_and_without_a_storm() -> None:
    traffic = Traffic("expected_latency", 4)
    everybody = {e.url for e in traffic.endpoints}
    traffic.run(2, 40)
    dead = traffic.run(5, 40, everybody, "connect")
    assert traffic.monitor.endpoints_out == {"connect": 4}
    assert min(dead.values()) >= 30  # each in turn
    failed = traffic.failed
    back = traffic.run(2, 40, everybody - {"http://e2"}, "connect")
    assert back["http://e2"] >= 8  # the first that is back serves at once, and is not flooded
    assert traffic.failed > failed
    traffic.run(4, 40)
    assert traffic.monitor.endpoints_out == {}
    even = traffic.run(4, 40)
    assert max(even.values()) <= 60, even


def test_a_flapping_endpoint_costs_few_requests() -> None:
    traffic = Traffic("least_connections", 4)
    for _ in range(15):
        traffic.run(1, 40)
        traffic.run(1, 40, {"http://e3"}, "connect")
    assert traffic.failed <= 0.08 * traffic.count


def test_clients_that_leave_put_nobody_out_and_shares_stay_even() -> None:
    monitor, router = monitor_of(), router_of("least_connections")
    endpoints = tuple(EndpointInfo(url=f"http://e{i}") for i in range(3))
    got: Counter[str] = Counter()
    for i in range(600):
        now = 1_000.0 + i * 0.1
        url = router.route_request(endpoints, {}, monitor.get_request_stats(now), None)
        got[url] += 1
        monitor.on_new_request(url, str(i), now)
        monitor.on_request_response(url, str(i), now + 0.05)
        if i % 2:
            monitor.on_request_failed(url, str(i), now + 0.06, "client")
        elif i % 4:
            monitor.on_request_failed(url, str(i), now + 0.06)  # the host cannot tell
        else:
            monitor.on_request_complete(url, str(i), now + 0.06)
    assert monitor.ejections == 0
    assert max(got.values()) - min(got.values()) < 90


def test_explain_says_who_is_out_since_when_why_and_until_when(
    caplog: pytest.LogCaptureFixture,
) -> None:
    traffic = Traffic("least_connections", 3)
    with caplog.at_level(logging.WARNING, "routecore.health"):
        traffic.run(1, 20, {"http://e0"}, "connect")
        explained = traffic.router.explain(
            traffic.endpoints, {}, traffic.monitor.get_request_stats(traffic.now), None
        )
        first = explained.candidates[0]
        assert not first.eligible and first.standing is not None
        assert (first.standing.state, first.standing.reason) == ("out", "connect")
        assert 1_000.0 < first.standing.since < traffic.now < (first.standing.until or 0.0)
        assert explained.url != first.url and "out: connect" in str(explained)
        assert explained.candidates[1].standing is None
        traffic.run(5, 20)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2 and "e0 is out" in lines[0] and "e0 is back" in lines[1]


def test_explain_tells_the_next_choice_while_some_are_out() -> None:
    traffic = Traffic("least_connections", 4)
    for at in range(60):
        traffic.run(0.1, 20, {"http://e0", "http://e1"} if at < 30 else (), "connect")
        stats = traffic.monitor.get_request_stats(traffic.now)
        explained = traffic.router.explain(traffic.endpoints, {}, stats, None).url
        assert explained == traffic.route()


def test_retry_after_is_honoured() -> None:
    traffic = Traffic("least_connections", 2)
    url = traffic.route()
    traffic.monitor.on_new_request(url, "x", traffic.now)
    traffic.monitor.on_request_complete(url, "x", traffic.now, status=429, retry_after=5.0)
    assert traffic.run(4.9, 10)[url] == 0
    assert traffic.run(4, 10)[url] > 0


def test_switched_off_nobody_is_out() -> None:
    traffic = Traffic("least_connections", 2)
    traffic.monitor = monitor_of(HealthPolicy(enabled=False))
    got = traffic.run(5, 20, {"http://e0"}, "connect")
    assert got["http://e0"] > 80
    assert not traffic.monitor.table.is_out("http://e0", traffic.now)


def test_a_wrong_setting_or_reason_names_itself() -> None:
    with pytest.raises(RouteError, match="jitter"):
        monitor_of(HealthPolicy(jitter=2.0))
    with pytest.raises(RouteError, match="connect, status"):
        monitor_of().on_request_failed("http://a", "1", 0.0, "refused")  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [[5.0] * 400, [5.0, 1e12, -3.0, float("nan"), 7.0] * 80])
def test_time_that_stands_or_jumps_raises_nothing_and_harms_nobody_well(times: Any) -> None:
    traffic = Traffic("least_connections", 3)
    for at, now in enumerate(times):
        traffic.now = now
        url = traffic.route()
        traffic.monitor.on_new_request(url, str(at), now)
        if url == "http://e0":
            traffic.monitor.on_request_failed(url, str(at), now, "status")
        else:
            traffic.monitor.on_request_complete(url, str(at), now)
    assert traffic.monitor.standing("http://e1") is None
    assert traffic.monitor.standing("http://e2") is None


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["response", "complete", "client", 204])),
        max_size=200,
    ),
    st.lists(st.one_of(st.floats(), st.floats(0, 100)), min_size=1, max_size=20),
)
def test_who_saw_nothing_but_successes_is_in(events: Any, times: Any) -> None:
    monitor = monitor_of()
    for at, (row, what) in enumerate(events):
        url, now = f"http://e{row}", times[at % len(times)]
        monitor.on_new_request(url, str(at), now)
        if what == "response":
            monitor.on_request_response(url, str(at), now)
        elif what == "client":
            monitor.on_request_failed(url, str(at), now, "client")
        else:
            monitor.on_request_complete(url, str(at), now, None if what == "complete" else what)
        assert monitor.standing(url) is None
    assert monitor.ejections == 0


WHAT = st.sampled_from(
    ["send", "token", "served", "connect", "status", "timeout", "client", "unknown", "wait"]
)


@given(
    st.lists(st.tuples(WHAT, st.integers(0, 3), st.integers(0, 7)), max_size=300),
    st.integers(2, 4),
)
def test_standings_are_those_of_the_naive_twin(steps: Any, ramp: int) -> None:
    policy = HealthPolicy(
        failures=3, window=6, ramp=ramp, jitter=0.0, seed=1, max_delay=4.0, forgive_after=8.0
    )
    urls = [f"http://e{i}" for i in range(4)]
    monitor = monitor_of(policy)
    for url in urls:
        monitor.table.add(url)
    naive, now = NaiveHealth(policy, urls), 100.0
    naive.start = naive.now = now
    monitor.get_request_stats(now)
    for at, (what, row, which) in enumerate(steps):
        url = urls[row]
        mine = [name for name, request in naive.requests.items() if request[0] == url]
        if what == "wait":
            now += which / 2
            monitor.get_request_stats(now)
            naive.now = now
        elif what == "send":
            naive.sent(url, str(at))
            monitor.on_new_request(url, str(at), now)
        elif mine:
            name = mine[which % len(mine)]
            if what == "token":
                naive.first_token(name, len(mine))
                monitor.on_request_response(url, name, now)
            elif what == "served":
                naive.served(name, now, len(mine) - 1)
                monitor.on_request_complete(url, name, now)
            else:
                naive.failed(name, now, what)
                monitor.on_request_failed(url, name, now, what)
        for one in urls:
            standing, twin = monitor.standing(one), naive.all[one]
            assert (standing.state if standing else "in") == twin.state, (at, one)
            if standing and standing.state == "out":
                assert standing.until == pytest.approx(twin.until, abs=1e-6)


def test_a_thousand_endpoints_of_which_a_hundred_are_dead_from_eight_threads() -> None:
    monitor, router = monitor_of(), router_of("least_connections")
    endpoints = tuple(EndpointInfo(url=f"http://e{i}") for i in range(1_000))
    dead = {e.url for e in endpoints[::10]}
    lock, count, clock = threading.Lock(), [0], [1_000.0]
    got: Counter[str] = Counter()

    def work() -> None:
        mine: list[tuple[str, str]] = []
        for _ in range(1_500):
            with lock:
                count[0] += 1
                clock[0] += 0.001
                name, now = str(count[0]), clock[0]
            url = router.route_request(endpoints, {}, monitor.get_request_stats(now), None)
            monitor.on_new_request(url, name, now)
            with lock:
                got[url] += 1
            if url in dead:
                monitor.on_request_failed(url, name, now, "connect")
            else:
                mine.append((url, name))
            if len(mine) > 100:
                monitor.on_request_complete(*mine.pop(0), now)
        for url, name in mine:
            monitor.on_request_complete(url, name, clock[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(got.values()) == 12_000
    assert monitor.in_flight == 0
    stats = monitor.get_request_stats(clock[0])
    assert all(stats[url].in_prefill_requests == 0 for url in got)
    # Two refusals, and a probe at 1, 3, 7 s of 12; eight threads may be on their way at once.
    assert max(got[url] for url in dead) <= 12
    assert sum(got[url] for url in dead) <= 700
