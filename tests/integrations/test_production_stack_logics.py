"""Each routing logic of production-stack; against a stand-in."""

import asyncio
import json
import sys
import time
from collections import Counter
from types import SimpleNamespace
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


def test_sessions_are_where_the_hosts_ring_has_them(stand_in: Any) -> None:
    # Made with uhashring 2.3, HashRing() and add_node for each URL; then two removed.
    from routecore.integrations.production_stack.ring import SessionRing

    urls = [f"http://engine{n}:8000" for n in range(6)]
    ids = ["abc123", "", "user-7", "séance", "42", "x" * 300]
    ring = SessionRing()
    assert [urls.index(ring.owner(i, set(urls))) for i in ids] == [4, 5, 0, 4, 1, 0]
    left = {url for url in urls if url not in (urls[1], urls[5])}
    assert [urls.index(ring.owner(i, left)) for i in ids] == [4, 4, 0, 4, 4, 0]
    alone = SessionRing()
    assert [alone.owner(i, left) for i in ids] == [ring.owner(i, left) for i in ids]


def test_the_session_ring_forgets_endpoints_that_are_gone(stand_in: Any) -> None:
    from routecore.integrations.production_stack.ring import SessionRing

    ring = SessionRing()
    for n in range(600):
        ring.owner("s", {f"http://gone{n}", "http://stays"})
    assert len(ring._known) < 300
    assert len(ring._points) == 160 * len(ring._known)


def test_sessions_stay_and_other_requests_go_by_load(stand_in: Any) -> None:
    app = stand_in.start("session", CALLBACKS, URLS, session_key="user")
    assert len({run(stand_in.handle({"user": 7}, str(n), good)) for n in range(5)}) == 1
    monitor = app.state.request_stats_monitor
    for url in URLS[:3]:
        monitor.on_new_request(url, url, time.time())
    assert run(stand_in.handle({}, "1", good)) == URLS[3]


def test_prefixes_stay_together_while_load_allows(stand_in: Any) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)

    async def many() -> Counter[str]:
        tasks = [asyncio.create_task(stand_in.handle(BODY, str(n), good)) for n in range(40)]
        return Counter(await asyncio.gather(*tasks))

    assert len({run(stand_in.handle(BODY, str(n), good)) for n in range(5)}) == 1
    assert len(run(many())) == 4  # all at once: no endpoint gets the crowd


def test_requests_wait_for_room_where_that_is_asked_for(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_HOLD", "true")
    monkeypatch.setenv("ROUTECORE_STRATEGY", "expected_latency")
    monkeypatch.setenv("ROUTECORE_PARAMS", "kv_tokens=600,seed=1")
    app = stand_in.start("prefixaware", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    hold = app.state.router.decision.router.hold
    names = ("decisions_total", "waited_seconds_count", "waited_seconds_sum")
    before = [figure(f"routecore_{name}", strategy="expected_latency") for name in names]

    async def two() -> None:
        monitor.on_new_request(URLS[0], "before", time.time())
        large = {"prompt": "a question that nobody else has asked so far " * 40}
        asked = asyncio.create_task(stand_in.handle(large, "1", good))
        while not hold.counts.waiting:
            await asyncio.sleep(0)
        assert figure("routecore_waiting_requests", host="production_stack") == 1
        (one,) = app.state.router.held()
        assert one.waits is not None and one.waits.url == URLS[0]
        assert f"waits for room at {URLS[0]}" in str(one) and "1 request waits" in str(one)
        monitor.on_request_complete(URLS[0], "before", time.time())
        assert await asyncio.wait_for(asked, 30) == URLS[0]

    run(two())
    assert (hold.counts.admitted, hold.counts.held) == (1, 1)
    after = [figure(f"routecore_{name}", strategy="expected_latency") for name in names]
    assert [y - x for x, y in zip(before[:2], after[:2], strict=True)] == [1, 1]
    assert after[2] - before[2] == pytest.approx(hold.counts.waited_s)
    assert figure("routecore_waiting_requests", host="production_stack") == 0
    assert app.state.router.held() == ()


def test_who_may_not_wait_gets_429_and_when_to_come_again(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HTTPException(Exception):
        def __init__(self, status_code: int, detail: str, headers: dict[str, str]) -> None:
            self.status_code, self.detail, self.headers = status_code, detail, headers

    monkeypatch.setitem(sys.modules, "fastapi", SimpleNamespace(HTTPException=HTTPException))
    monkeypatch.setenv("ROUTECORE_HOLD", "true")
    monkeypatch.setenv("ROUTECORE_HOLD_LIMITS", "max_requests=0")
    monkeypatch.setenv("ROUTECORE_STRATEGY", "expected_latency")
    monkeypatch.setenv("ROUTECORE_PARAMS", "kv_tokens=600,seed=1")
    app = stand_in.start("prefixaware", CALLBACKS, URLS[:1])
    monitor = app.state.request_stats_monitor
    rejected = [
        figure("routecore_rejected_requests_total", reason=reason)
        for reason in ("requests", "tokens", "seconds")
    ]
    fallbacks = figure("routecore_decisions_total", outcome="fallback")
    monitor.on_new_request(URLS[0], "before", time.time())
    large = {"prompt": "a question that nobody else has asked so far " * 40}
    with pytest.raises(HTTPException, match="too many requests wait") as raised:
        run(stand_in.handle(large, "1", good))
    assert raised.value.status_code == 429
    assert int(raised.value.headers["Retry-After"]) >= 1
    after = [
        figure("routecore_rejected_requests_total", reason=reason)
        for reason in ("requests", "tokens", "seconds")
    ]
    assert [y - x for x, y in zip(rejected, after, strict=True)] == [1, 0, 0]
    assert figure("routecore_decisions_total", outcome="fallback") == fallbacks
    assert monitor.in_flight == 1, "nothing is left of the one that was rejected"
    monitor.on_request_complete(URLS[0], "before", time.time())


def test_a_hold_that_cannot_work_is_said(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROUTECORE_HOLD", "true")
    stand_in.start("prefixaware", CALLBACKS, URLS)
    assert "hold has no effect" not in caplog.text
    stand_in.start("roundrobin", CALLBACKS, URLS)
    assert "hold has no effect with routing logic roundrobin" in caplog.text


def test_another_hashtrie_is_asked_in_place_of_ours(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS, prefix_min_match_length=128)
    asked: list[Any] = []

    class Trie:
        async def longest_prefix_match(self, text: str, urls: set[str]) -> Any:
            return 128, {URLS[2]}

        async def insert(self, text: str, url: str) -> None:
            asked.append((text, url))

    app.state.router.hashtrie = Trie()
    assert run(stand_in.handle({"prompt": "p"}, "1", good)) == URLS[2]
    assert asked == [("p", URLS[2])]


def test_the_prompt_index_is_bounded_and_keeps_what_is_used(stand_in: Any) -> None:
    from routecore.integrations.shared.prompts import PromptIndex

    async def inside() -> None:
        index = PromptIndex(max_blocks=8)
        await index.insert("a" * 256, URLS[0])
        both = {URLS[0], URLS[1]}
        for n in range(20):
            await index.insert(f"{n:0128d}", URLS[1])
            found = await index.longest_prefix_match("a" * 256 + "more", both)
            assert found == (256, {URLS[0]})
        assert len(index) == 8
        assert await index.longest_prefix_match(f"{0:0128d}", {URLS[1]}) == (0, {URLS[1]})
        assert await index.longest_prefix_match("a" * 256, {URLS[1]}) == (0, {URLS[1]})

    run(inside())


def test_kvaware_says_what_it_does_without_events(
    stand_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.start("kvaware", CALLBACKS, URLS, session_key="user", lmcache_controller_port=9)
    said = [r.getMessage() for r in caplog.records if "hears no KV events" in r.getMessage()]
    assert len(said) == 1
    assert "does not start the LMCache controller" in said[0]


def test_a_pair_is_chosen_by_cache_and_load_and_counts_until_its_request_ends(
    stand_in: Any,
) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill_orchestrated", CALLBACKS, URLS, **flags)
    router, monitor = app.state.router, app.state.request_stats_monitor
    both = endpoints(*URLS[:2], label="p") + endpoints(*URLS[2:], label="d")
    go = asyncio.Event()

    async def asked() -> tuple[str, str]:
        prefill, decode = router._find_endpoints(both)
        pair = (router.select_prefill_endpoint(prefill), router.select_decode_endpoint(decode))
        await go.wait()
        return pair[0].url, pair[1].url

    async def two() -> list[tuple[str, str]]:
        tasks = [asyncio.create_task(asked()) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert monitor.in_flight == 4
        go.set()
        return await asyncio.gather(*tasks)

    pairs = run(two())
    assert {pair[1] for pair in pairs} == set(URLS[2:])
    assert monitor.in_flight == 0


def through_the_tap(app: Any, host: Any, text: str) -> None:
    raw = json.dumps({"prompt": text * 100}).encode()
    pieces = [
        {"type": "http.request", "body": raw[:50], "more_body": True},
        {"type": "http.request", "body": raw[50:]},
    ]

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(_message: Any) -> None: ...

    async def ask() -> None:
        tap = disaggregated().Tap(host)
        await asyncio.create_task(tap({"type": "http"}, receive, send))

    run(ask())


def disaggregated() -> Any:
    from routecore.integrations.production_stack import disaggregated

    return disaggregated


def test_the_orchestrated_router_sees_the_prompt_and_the_answers_start(stand_in: Any) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill_orchestrated", CALLBACKS, URLS, **flags)
    monitor = app.state.request_stats_monitor
    chosen: list[str] = []
    loads: list[tuple[int, int]] = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        prefill = app.state.router.select_prefill_endpoint(endpoints(*URLS[:3])).url
        app.state.router.select_decode_endpoint(endpoints(URLS[3]))
        chosen.append(prefill)
        await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a token"})
        stats = monitor.get_request_stats(time.time())
        loads.append((monitor.in_flight, stats[URLS[3]].in_decoding_requests))

    for _ in range(4):
        through_the_tap(app, host, "same ")
    for n in range(12):
        through_the_tap(app, host, f"other{n} ")
    assert len(set(chosen[:4])) == 1
    assert len(set(chosen[4:])) > 1
    assert loads == [(1, 1)] * 16  # the prompt is done, the answer is being written
    assert monitor.in_flight == 0
    assert monitor.get_request_stats(time.time())[URLS[3]].finished_requests == 16


def test_a_pair_whose_engine_fails_is_not_taken_for_served(stand_in: Any) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill_orchestrated", CALLBACKS, URLS, **flags)
    monitor = app.state.request_stats_monitor

    async def host(scope: Any, receive: Any, send: Any) -> None:
        app.state.router.select_prefill_endpoint(endpoints(URLS[0]))
        app.state.router.select_decode_endpoint(endpoints(URLS[1]))
        await send({"type": "http.response.start", "status": 503})

    through_the_tap(app, host, "text ")
    assert monitor.in_flight == 0
    stats = monitor.get_request_stats(time.time())
    assert [stats[url].finished_requests for url in URLS[:2]] == [0, 0]


def test_halves_of_disaggregated_prefill_go_to_endpoints_of_their_label(stand_in: Any) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"]}
    app = stand_in.start("disaggregated_prefill", CALLBACKS, URLS, **flags)
    both = endpoints(*URLS[:2], label="p") + endpoints(*URLS[2:], label="d")
    request = stand_in.Request()

    def route(body: Any, of: list[Any]) -> str:
        return app.state.router.route_request(of, {}, {}, request, body)

    assert route({"max_tokens": 1}, both) in URLS[:2]
    assert route({"max_tokens": 9}, both) in URLS[2:]
    assert route({}, endpoints(*URLS[:1])) == URLS[0]
