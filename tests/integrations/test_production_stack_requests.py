"""Requests of production-stack from their start to their end; against a stand-in."""

import asyncio
import gc
import json
import time
from typing import Any

import pytest
from production_stack_host import (
    BODY,
    CALLBACKS,
    URLS,
    endpoints,
    figure,
    good,
    run,
)


def test_after_any_end_nothing_is_in_flight(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor

    async def refuses(_url: str) -> None:
        raise ConnectionError

    async def breaks(_url: str) -> None:
        raise RuntimeError

    async def hangs(_url: str) -> None:
        await asyncio.sleep(60)

    async def all_of_them() -> None:
        for backend in (good, refuses, breaks):
            await asyncio.gather(
                asyncio.create_task(stand_in.handle(BODY, "same-id", backend)),
                return_exceptions=True,
            )
        left = asyncio.create_task(stand_in.handle(BODY, "left", hangs))
        await asyncio.sleep(0.01)
        assert monitor.in_flight == 1
        left.cancel()  # the client left
        await asyncio.gather(left, return_exceptions=True)
        await asyncio.sleep(0)
        assert monitor.in_flight == 0

    gc.disable()
    try:
        run(all_of_them())
    finally:
        gc.enable()
    assert monitor.leases_expired == 0


def test_one_of_two_requests_with_the_same_id_may_fail(stand_in: Any) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    go = asyncio.Event()

    async def waits(_url: str) -> None:
        await go.wait()

    async def both() -> int:
        stays = asyncio.create_task(stand_in.handle(BODY, "id", waits))
        await asyncio.sleep(0)
        await asyncio.create_task(stand_in.handle(BODY, "id", good))
        await asyncio.sleep(0.01)
        between = monitor.in_flight
        go.set()
        await stays
        return between

    assert run(both()) == 1
    assert monitor.in_flight == 0


def test_a_failover_gives_the_load_of_the_failed_endpoint_back_at_once(stand_in: Any) -> None:
    app = stand_in.start(
        "prefixaware", CALLBACKS, URLS[:2], max_instance_failover_reroute_attempts=1
    )
    monitor = app.state.request_stats_monitor
    tried: list[str] = []

    async def first_fails(url: str) -> None:
        tried.append(url)
        if len(tried) == 1:
            raise ConnectionError
        stats = monitor.get_request_stats(1e9)
        assert stats[tried[0]].in_prefill_requests == 0
        assert stats[tried[1]].in_prefill_requests == 1

    assert run(stand_in.handle(BODY, "1", first_fails)) == tried[1] != tried[0]


def test_a_request_that_is_routed_without_a_task_ends_with_its_request(stand_in: Any) -> None:
    from routecore.integrations.production_stack.request_lifecycle import current

    app = stand_in.start("roundrobin", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    request = stand_in.Request()
    url = app.state.router.route_request(endpoints(*URLS[:1]), {}, {}, request)
    monitor.on_new_request(url, "1", 1.0)
    assert monitor.in_flight == 1
    assert current() is not None
    del request
    gc.collect()
    assert monitor.in_flight == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m", "input": "to embed"},
        {"model": "m", "input": ["a", "b"]},
        {"model": "m", "query": "q", "documents": ["d"]},
        {"model": "m", "prompt": [1, 2, 3]},
        {"model": "m", "prompt": ["a", "b"]},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user"}, 7, {"content": None}]},
        {"model": "m", "messages": [{"content": [{"type": "text", "text": "a"}, {"text": 3}]}]},
        {"model": "m", "messages": "text"},
        {"model": "m", "prompt": "\ud800"},
    ],
)
@pytest.mark.parametrize("logic", ["prefixaware", "session", "kvaware", "roundrobin"])
def test_no_body_fails_a_request(stand_in: Any, logic: str, body: Any) -> None:
    app = stand_in.start(logic, CALLBACKS, URLS, session_key="user")
    strategy = app.state.router.decision.strategy
    before = figure("routecore_decisions_total", strategy=strategy, outcome="fallback")
    assert run(stand_in.handle(body, "1", good)) in URLS
    after = figure("routecore_decisions_total", strategy=strategy, outcome="fallback")
    assert after == before
    # Without our monitor's stats the host's own way is gone; it takes any body too.
    route = app.state.router.route_request
    chosen = route(endpoints(*URLS), None, {}, stand_in.Request(), body)
    assert (chosen if isinstance(chosen, str) else run(chosen)) in URLS


def test_an_error_of_ours_routes_by_load_is_counted_and_logged_once_a_minute(
    stand_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    decision = app.state.router.decision
    monitor = app.state.request_stats_monitor
    monitor.on_new_request(URLS[0], "busy", time.time())

    class Broken:
        def route_request(self, *_: Any) -> str:
            raise RuntimeError("broken")

    decision.router = Broken()
    before = figure("routecore_decisions_total", outcome="fallback")
    urls = [run(stand_in.handle(BODY, str(n), good)) for n in range(5)]
    assert URLS[0] not in urls
    assert figure("routecore_decisions_total", outcome="fallback") == before + 5
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [w for w in warnings if "RuntimeError: broken" in w] == warnings
    assert len(warnings) == 1


def test_usage_is_read_from_answers_streamed_or_not(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    seen: list[Any] = []
    monitor = app.state.request_stats_monitor

    class Core:
        """Ours as usage will be reported to it: before a request ends."""

        def on_usage(self, *usage: Any) -> None:
            seen.append((usage, monitor.in_flight))

        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

    core, monitor.core = monitor.core, Core()
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    usage["prompt_tokens_details"] = {"cached_tokens": 5}
    whole = json.dumps({"id": "1", "usage": usage}).encode()
    stream = b'data: {"usage": null}\n\ndata: ' + whole + b"\n\ndata: [DONE]\n\n"
    before = figure("routecore_actual_hit_tokens_total")
    for answer in (whole, stream, b"", b"no json", b"data: {", b'{"usage": 3}'):
        url = run(stand_in.handle(BODY, "1", good, answer))
        assert seen[-1] == ((url, "1", 9, 5, 2), 1) or answer not in (whole, stream)
        assert monitor.in_flight == 0
    assert len(seen) == 2
    assert figure("routecore_actual_hit_tokens_total") == before + 10


def test_requests_in_flight_are_a_metric(stand_in: Any) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor
    before = figure("routecore_in_flight_requests")
    monitor.on_new_request(URLS[0], "1", 1.0)
    assert figure("routecore_in_flight_requests") == before + 1
    monitor.on_request_failed(URLS[0], "1", 2.0)
    assert figure("routecore_in_flight_requests") == before
