"""`Fleet`: what a router of one's own needs, in one object; and the example gateway over it."""

import asyncio
import importlib.util
import socket
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from routecore import (
    EndpointInfo,
    Fleet,
    HealthPolicy,
    HoldLimits,
    Rejected,
    RouteError,
    RoutingInterface,
)
from routecore.demo.engine import Engine
from routecore.demo.runner import serve
from routecore.fleet import reason_of

URLS = [f"http://engine-{at}:8000" for at in range(3)]
BODY = {"messages": [{"role": "user", "content": "the same long question " * 200}]}


def test_a_prompt_returns_to_where_it_is_cached() -> None:
    fleet = Fleet(URLS, params={"seed": 1})
    seen = []
    for _ in range(4):
        with fleet.request(BODY) as request:
            seen.append(request.url)
            request.first_token()
            request.usage(1200, 0, 5)
    assert len(set(seen)) == 1
    assert fleet.monitor.in_flight == 0
    assert fleet.explain(BODY).url == seen[0]


def test_load_counts_from_the_choice_to_the_end() -> None:
    fleet = Fleet(URLS, "least_connections")
    requests = [fleet.request() for _ in range(6)]
    urls = sorted(request.__enter__().url for request in requests)
    assert urls == sorted(URLS * 2)
    for request in requests:
        request.__exit__(None, None, None)
    assert fleet.monitor.in_flight == 0


def test_asyncio_takes_it_as_it_is() -> None:
    fleet = Fleet(URLS)

    async def ask() -> None:
        async with fleet.request(BODY) as request:
            assert fleet.monitor.in_flight == 1
            request.first_token()
            await asyncio.sleep(60)

    async def inside() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(), 0.05)

    asyncio.run(inside())
    assert fleet.monitor.in_flight == 0
    assert fleet.monitor.endpoints_out == {}


@pytest.mark.parametrize(
    ("error", "answered", "reason"),
    [
        (asyncio.CancelledError(), False, "client"),
        (GeneratorExit(), True, "client"),
        (ConnectionRefusedError(), False, "connect"),
        (httpx.ConnectError("refused"), False, "connect"),
        (socket.gaierror(), False, "connect"),
        (httpx.ReadTimeout("late"), False, "timeout"),
        (TimeoutError(), True, "timeout"),
        (httpx.ReadError("cut"), True, "broken"),
        (RuntimeError(), False, "unknown"),
    ],
)
def test_exceptions_say_what_happened(error: BaseException, answered: bool, reason: str) -> None:
    assert reason_of(error, answered=answered) == reason


def test_an_exception_is_a_failure_and_passes_through() -> None:
    fleet = Fleet(URLS[:1])
    with pytest.raises(ConnectionRefusedError), fleet.request(BODY):
        raise ConnectionRefusedError
    assert fleet.monitor.in_flight == 0
    for _ in range(8):
        with pytest.raises(ConnectionRefusedError), fleet.request(BODY):
            raise ConnectionRefusedError
    assert sum(fleet.monitor.endpoints_out.values()) == 1


def test_error_statuses_put_an_endpoint_out() -> None:
    fleet = Fleet(URLS, "least_connections")
    for _ in range(60):
        with fleet.request() as request:
            request.status(500 if request.url == URLS[0] else 200, "not a number")
            request.first_token()
    assert sum(fleet.monitor.endpoints_out.values()) == 1
    free = Fleet(URLS, "least_connections", health=HealthPolicy(enabled=False))
    for _ in range(60):
        with free.request() as request:
            request.status(500)
    assert free.monitor.endpoints_out == {}


def test_a_retry_tries_every_endpoint_once() -> None:
    fleet = Fleet(URLS)
    with pytest.raises(RouteError, match="all 3 endpoints failed"), fleet.request(BODY) as request:
        seen = [request.url]
        while True:
            seen.append(request.retry(ConnectionRefusedError()))
            assert fleet.monitor.in_flight == 1
    assert sorted(seen) == URLS
    assert request.tried == seen
    assert fleet.monitor.in_flight == 0


def test_an_answered_request_stays() -> None:
    fleet = Fleet(URLS)
    with fleet.request(BODY) as request:
        request.first_token()
        with pytest.raises(RouteError, match="has answered"):
            request.retry()


def test_endpoints_come_and_go() -> None:
    fleet = Fleet(URLS, "round_robin")
    fleet.endpoints = [EndpointInfo(url="http://new:1")]
    with fleet.request() as request:
        assert request.url == "http://new:1"
    with pytest.raises(RouteError, match="at least one endpoint"):
        fleet.endpoints = []


def test_sessions_are_read_from_headers() -> None:
    fleet = Fleet(URLS, "session_affinity")
    urls = set()
    for _ in range(5):
        with fleet.request({}, headers={"x-session-id": "s1"}) as request:
            urls.add(request.url)
    assert len(urls) == 1


def test_fleets_are_independent() -> None:
    one, two = Fleet(URLS), Fleet(URLS)
    with one.request(BODY):
        assert (one.monitor.in_flight, two.monitor.in_flight) == (1, 0)
    assert one.router is not two.router


def test_mistakes_are_named() -> None:
    with pytest.raises(RouteError, match="strategy: unknown 'fastest'; valid: round_robin"):
        Fleet(URLS, "fastest")
    with pytest.raises(RouteError, match="takes no parameter 'weight'; did you mean decode_weight"):
        Fleet(URLS, params={"weight": 1})
    fleet = Fleet(URLS)
    with pytest.raises(RouteError, match="not sent yet"):
        fleet.request(BODY).first_token()
    with fleet.request(BODY) as request:
        pass
    with pytest.raises(RouteError, match="sent once"):
        request.__enter__()
    assert repr(fleet) == "<Fleet expected_latency, 3 endpoints>"


def test_a_strategy_of_ones_own_routes() -> None:
    class Last(RoutingInterface):
        strategy = "last"

        def route_request(self, endpoints, engine_stats, request_stats, request, body=None):  # type: ignore[no-untyped-def,override]
            return endpoints[-1].url

    with Fleet(URLS, Last()).request(BODY) as request:  # type: ignore[arg-type]
        assert request.url == URLS[-1]


def gateway(monkeypatch: pytest.MonkeyPatch, *engines: str) -> Any:
    """The example, as a module of its own for these engines."""
    monkeypatch.setenv("ENGINES", ",".join(engines))
    path = Path(__file__).parent.parent / "examples" / "gateway.py"
    spec = importlib.util.spec_from_file_location("example_gateway", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_gateway_streams_and_fails_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inside() -> None:
        async with serve(Engine(speed=50).app) as alive:
            module = gateway(monkeypatch, alive, "http://127.0.0.1:1")
            async with serve(module.app) as door, aiohttp.ClientSession() as session:
                for _ in range(12):
                    body = {"messages": BODY["messages"], "max_tokens": 4, "stream": True}
                    async with session.post(f"{door}/v1/chat/completions", json=body) as answer:
                        assert answer.status == 200
                        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
                async with session.post(f"{door}/v1/chat/completions", data=b"{") as answer:
                    assert answer.status == 400
                body = {"prompt": "x", "max_tokens": 100_000, "stream": True}
                async with session.post(f"{door}/v1/completions", json=body) as answer:
                    assert await answer.content.readany()
                    assert module.fleet.monitor.in_flight == 1
                for _ in range(3000):
                    if not module.fleet.monitor.in_flight:
                        break
                    await asyncio.sleep(0.02)
                assert module.fleet.monitor.in_flight == 0
            await module.client.aclose()

    asyncio.run(inside())


def test_the_example_gateway_says_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inside() -> None:
        module = gateway(monkeypatch, "http://127.0.0.1:1", "http://127.0.0.1:2")
        async with (
            serve(module.app) as door,
            aiohttp.ClientSession() as session,
            session.post(f"{door}/v1/completions", json={"prompt": "x"}) as answer,
        ):
            assert answer.status == 502
            assert "all 2 endpoints failed" in await answer.text()
        assert module.fleet.monitor.in_flight == 0
        await module.client.aclose()

    asyncio.run(inside())


def test_the_example_gateway_lets_requests_wait_and_turns_away_who_is_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def inside() -> None:
        monkeypatch.setenv("HOLD", "1")
        module = gateway(monkeypatch, "http://127.0.0.1:1")
        assert module.fleet._holds
        limits = HoldLimits(max_requests=0)
        params = {"kv_tokens": 1_000, "seed": 1}
        module.fleet = Fleet(["http://127.0.0.1:1"], params=params, hold=limits)
        async with (
            module.fleet.request(question(1)),
            serve(module.app) as door,
            aiohttp.ClientSession() as session,
            session.post(f"{door}/v1/completions", json=question(2)) as answer,
        ):
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert "too many requests wait" in await answer.text()
        await module.client.aclose()

    asyncio.run(inside())


def question(number: int) -> dict[str, Any]:
    """A prompt of 600 tokens that nobody shares, in a cache of 1,000."""
    return {"prompt": [number * 10_000 + at for at in range(600)], "max_tokens": 1}


def held_fleet(**limits: Any) -> Fleet:
    params = {"kv_tokens": 1_000, "seed": 1}
    return Fleet(URLS[:1], params=params, hold=HoldLimits(**limits) if limits else True)


def test_with_a_hold_requests_wait_for_room() -> None:
    fleet = held_fleet(max_requests=1)
    order: list[int] = []

    async def ask(number: int, done: asyncio.Event) -> float:
        async with fleet.request(question(number), headers={"x-user": "u"}) as request:
            order.append(number)
            assert fleet.monitor.in_flight == 1
            await done.wait()
            request.first_token()
            request.usage(600, 0, 1)
            return request.waited_s

    async def scenario() -> None:
        done = asyncio.Event()
        tasks = []
        for number in (1, 2):
            tasks.append(asyncio.create_task(ask(number, done)))
            await asyncio.sleep(0)
        assert order == [1]
        assert fleet.explain(question(3)).waits is not None
        (held,) = fleet.held()
        assert (held.request_id, held.ahead) == ("1", 0) and held.waited_s >= 0
        assert held.waits is not None and held.waits.url == "http://engine-0:8000"
        assert str(held).startswith("1, ") and "waits for room at http://engine-0:8000" in str(held)
        with pytest.raises(Rejected, match="too many requests wait"):
            await ask(3, done)
        with pytest.raises(RouteError, match="async with"), fleet.request(question(4)):
            pass
        done.set()
        first, second = await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert (first, order) == (0.0, [1, 2])
        assert second > 0
        assert fleet.held() == ()

    asyncio.run(scenario())
    assert fleet.monitor.in_flight == 0
    assert not fleet.table.column("kv_tokens").any()


def test_a_wait_that_is_cancelled_or_in_a_thread_leaves_nothing_behind() -> None:
    fleet = held_fleet()

    async def ask(number: int) -> None:
        async with fleet.request(question(number)):
            await asyncio.sleep(0)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(2), 0.05)

    with fleet.request(question(1)) as request:
        assert request.waited_s == 0
        asyncio.run(scenario())
        later = threading.Thread(target=lambda: fleet.request(question(3)).__enter__())
        later.start()
        while fleet.router.hold.counts.waiting == 0:
            time.sleep(0.001)
    later.join(30)
    counts = fleet.router.hold.counts
    assert (counts.admitted, counts.left, counts.waiting) == (2, 1, 0)
    assert fleet.monitor.in_flight == 1


def warmed(fleet: Fleet) -> str:
    """Serves some prompts; returns where the first one is cached."""
    urls = []
    for at in range(12):
        body = {"messages": [{"role": "user", "content": f"{at % 4} a question " * 300}]}
        with fleet.request(body) as request:
            urls.append(request.url)
            request.first_token()
            request.usage(1200, 0, 40 + at)
    return urls[0]


def learned(fleet: Fleet) -> Any:
    """What it knows of its engines' speed, but for rates, which depend on the time."""
    prefill, step, output, _, reuse, sequences = fleet.table.core.engine
    return prefill, step, output, reuse, sequences


def test_a_restart_with_saved_state_is_warm(tmp_path: Path) -> None:
    path = tmp_path / "fleet.state"
    before = Fleet(URLS)
    home = warmed(before)
    before.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]

    after = Fleet(URLS)
    assert after.load(path)
    assert learned(after) == learned(before)
    assert [after.table.core.held(url) for url in URLS] == [
        (held, 0, most) for held, _, most in (before.table.core.held(url) for url in URLS)
    ]
    body = {"messages": [{"role": "user", "content": "0 a question " * 300}]}
    with after.request(body) as request:
        assert request.url == home
    assert after.monitor.in_flight == 0


def test_what_was_never_saved_is_a_cold_start(tmp_path: Path) -> None:
    assert not Fleet(URLS).load(tmp_path / "fleet.state")


def test_endpoints_that_went_and_came_keep_their_own(tmp_path: Path) -> None:
    path = tmp_path / "fleet.state"
    before = Fleet(URLS)
    warmed(before)
    before.save(path)
    after = Fleet(["http://new:1", *URLS[::-1]])
    after.table.add("http://new:1")
    assert after.load(path)
    for url in URLS:
        assert after.table.core.held(url)[0] == before.table.core.held(url)[0]
    assert after.table.core.held("http://new:1")[0] == 0


def test_the_index_of_other_hashes_is_left_and_the_rest_taken(tmp_path: Path) -> None:
    path = tmp_path / "fleet.state"
    before = Fleet(URLS, params={"hash_seed": 1})
    warmed(before)
    before.save(path)
    after = Fleet(URLS, params={"hash_seed": 2})
    assert after.load(path)
    assert learned(after) == learned(before)
    assert not any(after.table.core.held(url)[0] for url in URLS)
    load_only = Fleet(URLS, "least_connections")
    assert load_only.load(path)


def damaged(content: bytes) -> dict[str, bytes]:
    at = content.index(b"routcore")
    return {
        "": b"",
        "text": b"something else\n",
        "cut": content[: len(content) // 2],
        "bit": content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
        "url": content.replace(b"engine-1", b"engine-9"),
        "this version reads 1": content[: at + 8] + b"\x09" + content[at + 9 :],
    }


@pytest.mark.parametrize("kind", ["", "text", "cut", "bit", "url", "this version reads 1"])
def test_a_damaged_or_newer_file_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fleet.state"
    before = Fleet(URLS)
    warmed(before)
    before.save(path)
    path.write_bytes(damaged(path.read_bytes())[kind])
    after = Fleet(URLS)
    cold = learned(after)
    with pytest.raises(RouteError) as error:
        after.load(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert kind in ("", "text", "cut", "bit", "url") or kind in said
    assert learned(after) == cold
    with after.request(BODY) as request:
        request.first_token()


def test_a_fleet_with_requests_in_flight_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fleet.state"
    fleet = Fleet(URLS)
    warmed(fleet)
    fleet.save(path)
    with fleet.request(BODY), pytest.raises(RouteError, match="1 requests are in flight"):
        fleet.load(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "fleet.state"
    with pytest.raises(FileNotFoundError):
        Fleet(URLS).save(path)


def test_the_example_gateway_keeps_what_it_learned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE", str(tmp_path / "fleet.state"))

    async def serve(module: Any) -> str:
        async with module.warm(module.app):
            return warmed(module.fleet)

    first = gateway(monkeypatch, *URLS)
    home = asyncio.run(serve(first))
    second = gateway(monkeypatch, *URLS)
    assert asyncio.run(serve(second)) == home
    (tmp_path / "fleet.state").write_bytes(b"torn")
    third = gateway(monkeypatch, *URLS)
    asyncio.run(serve(third))
    assert gateway(monkeypatch, *URLS).fleet.load(tmp_path / "fleet.state")


def test_reprs_are_short() -> None:
    fleet = Fleet(URLS)
    request = fleet.request(BODY)
    assert repr(request) == "<FleetRequest, not sent yet>"
    with request:
        assert repr(request) == f"<FleetRequest to {request.url}>"
        assert repr(fleet.monitor) == "<RequestStatsMonitor, 1 in flight>"
    assert repr(fleet.table) == "<EndpointTable of 3 endpoints>"
    assert repr(fleet.router) == "<ExpectedLatencyRouter>"
