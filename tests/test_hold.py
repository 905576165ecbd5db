"""Requests that wait at the router until there is room: `admit`, `acquire`, tickets, bounds."""

import asyncio
import random
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import (
    EndpointInfo,
    ExpectedLatencyRouter,
    LeastConnectionsRouter,
    RequestStatsMonitor,
    RouteError,
)
from routecore.hold import Go, HoldLimits, Reject, Rejected, Wait

ROOM = 1_000  # tokens


def body(number: int, tokens: int = 600) -> dict[str, Any]:
    """A prompt of so many tokens that nobody shares."""
    return {"prompt": [number * 10_000 + at for at in range(tokens)]}


class Host:
    """A router, a monitor, and endpoints with room for 1,000 tokens each."""

    def __init__(self, count: int = 1, **limits: Any) -> None:
        self.router = ExpectedLatencyRouter(kv_tokens=ROOM, seed=1)
        if limits:
            self.router.set_hold(HoldLimits(**limits))
        self.monitor = RequestStatsMonitor(60.0)
        self.endpoints = tuple(EndpointInfo(url=f"http://e{at}:8000") for at in range(count))
        # Answers are short, so that prompts decide.
        for at in range(40):
            name = f"warm-{at}"
            self.monitor.on_new_request(self.endpoints[0].url, name, 1.0)
            self.monitor.on_request_response(self.endpoints[0].url, name, 1.0)
            self.monitor.on_usage(self.endpoints[0].url, name, 100, 0, 1)
            self.monitor.on_request_complete(self.endpoints[0].url, name, 1.1)

    def sources(self) -> Any:
        return self.endpoints, None, self.monitor.get_request_stats(time.time())

    def acquire(self, number: int, tokens: int = 600, **options: Any) -> Any:
        return self.router.acquire(
            self.sources, request_json=body(number, tokens), request_id=f"r{number}", **options
        )


def test_who_finds_no_room_waits_for_an_end() -> None:
    async def scenario() -> None:
        host = Host()
        first = await host.acquire(1)
        second = asyncio.create_task(host.acquire(2))
        third = asyncio.create_task(host.acquire(3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert host.router.hold.counts.waiting == 2
        found = host.router.explain(*host.sources(), None, body(4))
        assert found.waits is not None
        assert "600 added, room for 990; 2 requests wait" in str(found)
        assert first.ticket is not None
        first.ticket.first_token()
        first.ticket.done(600, 0, 10)
        first.ticket.done()
        gone = await asyncio.wait_for(second, 30)
        assert not third.done(), "one at a time"
        # The host's own report, under the same id, is the same request.
        host.monitor.on_new_request(gone.url, "r2", time.time())
        assert host.monitor.in_flight == 1
        host.monitor.on_request_failed(gone.url, "r2", time.time(), "client")
        last = await asyncio.wait_for(third, 30)
        with last.ticket:
            assert host.monitor.in_flight == 1
        assert host.monitor.in_flight == 0
        assert list(host.monitor.table.column("kv_tokens")) == [0.0]
        counts = host.router.hold.counts
        assert (counts.admitted, counts.held, counts.waiting) == (3, 2, 0)
        assert counts.waited_s > 0

    asyncio.run(scenario())


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        host = Host()
        first = await host.acquire(1)
        waiting = [asyncio.create_task(host.acquire(at)) for at in range(2, 8)]
        await asyncio.sleep(0.01)
        first.ticket.done()  # the next one is let go, and cancelled in the same turn of the loop
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert host.monitor.in_flight == 0
        assert host.router.hold.counts.waiting == 0
        assert list(host.monitor.table.column("in_flight")) == [0.0]

    asyncio.run(scenario())


def test_bounds_reject_with_a_reason_and_a_time() -> None:
    async def scenario() -> None:
        host = Host(max_requests=1, max_wait_s=30)
        await host.acquire(1)
        waiting = asyncio.create_task(host.acquire(2))
        await asyncio.sleep(0)
        with pytest.raises(Rejected, match="too many requests wait") as raised:
            await host.acquire(3)
        error = raised.value
        assert (error.reason, error.status) == ("requests", 429)
        assert error.retry_after_s >= 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        begun = time.monotonic()
        with pytest.raises(Rejected) as raised:
            await host.acquire(4, patience=0.05)
        assert raised.value.reason == "seconds"
        assert time.monotonic() - begun >= 0.05
        counts = host.router.hold.counts
        assert counts.rejected == {"requests": 1, "tokens": 0, "seconds": 1}
        assert (counts.left, counts.waiting) == (1, 0)

    asyncio.run(scenario())


def test_one_that_waits_meets_the_endpoints_of_the_moment() -> None:
    async def scenario() -> None:
        host = Host()
        first = await host.acquire(1)
        waiting = asyncio.create_task(host.acquire(2))
        await asyncio.sleep(0)
        host.endpoints = (*host.endpoints, EndpointInfo(url="http://new:8000"))
        host.router.hold.pump()
        assert (await asyncio.wait_for(waiting, 30)).url == "http://new:8000"
        waiting = asyncio.create_task(host.acquire(3))
        await asyncio.sleep(0)
        asleep = (EndpointInfo(url="http://e0:8000", sleep=True),)
        host.endpoints = asleep
        first.ticket.done()
        with pytest.raises(RouteError, match="no endpoint is eligible"):
            await asyncio.wait_for(waiting, 30)

    asyncio.run(scenario())


def test_a_fault_of_the_hosts_own_reaches_who_waits() -> None:
    async def scenario() -> None:
        host = Host()
        first = await host.acquire(1)
        waiting = asyncio.create_task(host.acquire(2))
        await asyncio.sleep(0)

        def broken() -> Any:
            raise OSError("discovery is down")

        host.sources = broken  # type: ignore[method-assign]
        failing = asyncio.create_task(host.router.acquire(broken, request_json=body(5)))
        first.ticket.done()
        assert (await asyncio.wait_for(waiting, 30)).url
        with pytest.raises(OSError, match="discovery"):
            await failing

    asyncio.run(scenario())


def test_who_waits_is_shown_whatever_is_wrong_with_one_of_them() -> None:
    async def scenario() -> None:
        host = Host()
        hold = host.router.hold
        first = await host.acquire(1)
        is_down = False

        def faulty() -> Any:
            if is_down:
                raise OSError("discovery is down")
            return host.sources()

        failing = asyncio.create_task(host.router.acquire(faulty, request_json=body(2)))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(host.acquire(number)) for number in range(3, 6)]
        await asyncio.sleep(0)
        is_down = True
        down, *others = hold.held()
        assert down.waits is None and down.fault == "OSError: discovery is down"
        assert "cannot be tried: OSError: discovery is down" in str(down)
        assert [one.request_id for one in others] == ["r3", "r4", "r5"]
        assert all(one.waits is not None and one.fault is None for one in others)
        assert [one.request_id for one in hold.held(2)][1:] == ["r3"]
        looks = hold.looks()
        next(looks)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert [one.request_id for one in looks] == ["r4", "r5"], "r3 has left meanwhile"
        for task in (failing, *waiting):
            task.cancel()
        first.ticket.done()
        await asyncio.gather(failing, *waiting, return_exceptions=True)
        assert hold.held() == () and host.monitor.in_flight == 0

    asyncio.run(scenario())


def test_threads_wait_too() -> None:
    host = Host()
    first = host.router.acquire_sync(host.sources, request_json=body(1))
    went: list[Go] = []

    def wait() -> None:
        went.append(host.router.acquire_sync(host.sources, request_json=body(2)))

    thread = threading.Thread(target=wait)
    thread.start()
    while host.router.hold.counts.waiting == 0:
        time.sleep(0.001)
    assert first.ticket is not None
    first.ticket.fail("timeout")
    thread.join(30)
    assert went
    assert went[0].waited_s > 0


def test_admit_answers_at_once() -> None:
    host = Host(max_requests=1)
    router = host.router
    first = router.admit(host.sources, request_json=body(1))
    assert isinstance(first, Go)
    second = router.admit(host.sources, request_json=body(2))
    assert isinstance(second, Wait)
    assert isinstance(router.admit(host.sources, request_json=body(3)), Reject)
    assert router.admit(host.sources, waiter=second.waiter) == second
    assert first.ticket is not None
    first.ticket.done()
    third = router.admit(host.sources, waiter=second.waiter)
    assert isinstance(third, Go)
    with pytest.raises(RouteError, match="nobody waits"):
        router.admit(host.sources, waiter=second.waiter)
    fourth = router.admit(host.sources, request_json=body(4))
    assert isinstance(fourth, Wait)
    router.hold.abandon(fourth.waiter)
    assert router.hold.counts.waiting == 0


def test_any_strategy_can_hold_but_not_without_our_monitor() -> None:
    host = Host()
    router = LeastConnectionsRouter()
    stats = host.monitor.get_request_stats(time.time())
    host.monitor.table.load_columns({"kv_capacity_tokens": _column(ROOM)})
    assert isinstance(router.admit(host.endpoints, None, stats, None, body(1)), Go)
    assert isinstance(router.admit(host.endpoints, None, stats, None, body(2)), Wait)
    waits = router.explain(host.endpoints, None, stats, None, body(3)).waits
    assert waits is not None, "room is a matter of the prompt, whatever the strategy goes by"
    assert (waits.added_tokens, waits.waiting) == (600, 1)
    with pytest.raises(RouteError, match="RequestStatsMonitor"):
        router.admit(host.endpoints, None, {}, None, body(3))
    with pytest.raises(RouteError, match="max_wait_s: expected"):
        router.set_hold(HoldLimits(max_wait_s=-1))


def _column(value: float) -> Any:
    import numpy as np

    return np.array([float(value)])


def test_nothing_is_held_after_a_storm() -> None:
    draws = random.Random(3)

    async def client(host: Host, number: int) -> str:
        try:
            go = await host.acquire(number, draws.randrange(50, 900), patience=draws.choice([1, 9]))
        except Rejected as error:
            return error.reason
        with go.ticket as ticket:
            await asyncio.sleep(draws.random() * 0.004)
            if draws.random() < 0.2:
                ticket.fail(draws.choice(["timeout", "client", "status"]))
            else:
                ticket.first_token()
                ticket.done(600, 0, 5)
        return "went"

    async def scenario() -> None:
        host = Host(3, max_requests=200)
        tasks = []
        for number in range(1_000):
            tasks.append(asyncio.create_task(client(host, number)))
            if draws.random() < 0.1:
                draws.choice(tasks).cancel()
            if number % 10 == 0:
                await asyncio.sleep(0.004)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        counts = host.router.hold.counts
        assert counts.held > 50, counts
        assert {r for r in results if isinstance(r, str)} <= {"went", "requests", "seconds"}
        assert (counts.waiting, counts.waiting_tokens, host.monitor.in_flight) == (0, 0, 0)
        for name in ("in_flight", "kv_tokens", "context_tokens"):
            assert not host.monitor.table.column(name).any(), name

    asyncio.run(scenario())


def test_whole_sessions_are_let_in_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("routecore.hold.queue.time", clock)
    host = Host(2, sessions="x-session-id", session_idle_s=0.2)

    def turn(session: str, number: int, waiter: int | None = None) -> Any:
        asked = {**body(number), "x_session_id": session}
        name = f"{session}-{number}"
        return host.router.admit(host.sources, request_json=asked, request_id=name, waiter=waiter)

    first, second = turn("a", 1), turn("b", 2)
    assert {first.url, second.url} == {info.url for info in host.endpoints}
    for gone in (first, second):
        gone.ticket.first_token()
        gone.ticket.done(600, 0, 1)
    waits = turn("c", 3)
    assert isinstance(waits, Wait), "both endpoints are idle, but two sessions live there"
    (held,) = host.router.hold.held()
    assert held.in_session and held.waits is None and "sessions that live" in str(held)
    again = turn("a", 4)
    assert again.url == first.url
    now[0] += 0.3  # b has had nothing in flight for as long as it may
    found = turn("c", 3, waits.waiter)
    assert found.url == second.url, "a has a turn in flight"
    again.ticket.done(600, 0, 1)
    found.ticket.done(600, 0, 1)
    assert host.monitor.in_flight == 0


def test_requests_of_no_session_do_not_wait_for_those_that_live() -> None:
    host = Host(1, sessions="x-session-id")
    with turn_of(host, 1, "a").ticket, turn_of(host, 2, None, tokens=100).ticket:
        assert host.monitor.in_flight == 2


def turn_of(host: Host, number: int, session: str | None, tokens: int = 600) -> Any:
    """A turn that goes at once."""
    asked = {**body(number, tokens), "x-session-id": session}
    return host.router.admit(host.sources, request_json=asked, request_id=f"r{number}")


@pytest.mark.parametrize("wrong", ["done", "fail"])
def test_a_ticket_ends_whatever_is_said_of_its_end(wrong: str) -> None:
    async def scenario() -> None:
        host = Host(max_requests=9)
        go = await host.acquire(1)
        assert go.ticket is not None and host.monitor.in_flight == 1
        with pytest.raises((TypeError, RouteError)):
            if wrong == "done":
                go.ticket.done(prompt_tokens="many")  # type: ignore[arg-type]
            else:
                go.ticket.fail("nope")  # type: ignore[arg-type]
        assert host.monitor.in_flight == 0

    asyncio.run(scenario())
