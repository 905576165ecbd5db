"""Ray Serve itself, on this machine: route, scale, lose a replica, fail."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import ray_cluster
from ports import free_port

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: make test-hosts")

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import BackPressureError
from routecore.integrations.shared.shadow import summarise

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray_serve,
    # Ray's own deprecations are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

PORT = free_port()
CLASS = "routecore.integrations.ray_serve.RoutecoreRequestRouter"
TEXTS = [f"conversation {i} " + f"{i:03d}" * 700 for i in range(12)]


class Chat:
    """As Serve LLM hands requests over: an object with messages."""

    def __init__(self, text: str) -> None:
        self.model = "m"
        self.messages = [{"role": "user", "content": text}]


class Engine:
    """Answers which process it is; `die`, `wait` and `sick` make calls go wrong or slow, `until`
    names a file and waits until it is there."""

    def __init__(self) -> None:
        self._sick = False

    async def __call__(
        self,
        request: Any = None,
        die: bool = False,
        wait: float = 0.0,
        sick: bool = False,
        until: str = "",
    ) -> int:
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        self._sick = self._sick or sick
        if self._sick:
            raise ValueError("sick")
        query = getattr(request, "query_params", {})  # over HTTP
        await asyncio.sleep(float(query.get("wait", wait)))
        while (file := query.get("until", until)) and not os.path.exists(file):
            await asyncio.sleep(0.02)
        return os.getpid()

    async def stream(self, request: Any = None) -> AsyncIterator[int]:
        if self._sick:
            raise ValueError("sick")
        for _ in range(3):
            yield os.getpid()


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with ray_cluster.local_serve(PORT):
        yield


@pytest.fixture(autouse=True)
def no_deployment_is_left() -> Iterator[None]:
    """Each test has the machine to itself, as far as Serve goes."""
    yield
    for name in serve.status().applications:
        serve.delete(name)


def deploy(
    name: str, replicas: int, limit: int = 8, route: str | None = None, **kwargs: Any
) -> Any:
    config = RequestRouterConfig(request_router_class=CLASS, request_router_kwargs=kwargs)
    deployment = serve.deployment(
        Engine,
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=limit,
        health_check_period_s=1,
        health_check_timeout_s=120,
        ray_actor_options={"num_cpus": 0.05},
        request_router_config=config,
    )
    return serve.run(deployment.bind(), name=name, route_prefix=route)


def router_of(handle: Any) -> Any:
    """The request router of this process; asked of Serve only to look at counts."""
    return handle._router._asyncio_router.request_router


def settled(handle: Any) -> int:
    """Requests in flight once Serve has reported all ends."""
    deadline = time.monotonic() + 30
    monitor = router_of(handle)._fleet.monitor
    while monitor.in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(monitor.in_flight)


def test_conversations_stay_together_and_spread() -> None:
    handle = deploy("prefix", 3, strategy="prefix_affinity", load_factor=3.0)
    homes: dict[str, set[int]] = {text: set() for text in TEXTS}
    for _ in range(4):
        for text in TEXTS:
            homes[text].add(handle.remote(Chat(text)).result())
            settled(handle)
    assert all(len(pids) == 1 for pids in homes.values())
    assert len(set().union(*homes.values())) > 1
    assert router_of(handle)._fleet.faults == 0


def test_a_burst_spreads_by_load_and_nothing_leaks() -> None:
    handle = deploy("load", 3, limit=4, strategy="least_connections")
    handle.remote().result()
    settled(handle)
    with ThreadPoolExecutor(48) as pool:  # four times what fits at once: Serve must queue
        calls = [pool.submit(lambda: handle.remote(wait=0.1).result()) for _ in range(48)]
        served = Counter(call.result() for call in calls)
    assert sum(served.values()) == 48
    assert len(served) == 3
    assert max(served.values()) <= 2 * min(served.values())
    assert settled(handle) == 0
    assert not router_of(handle)._accepted


def test_reserved_slots_beside_calls_leave_nothing_behind() -> None:
    handle = deploy("slots", 2, strategy="least_connections")

    async def reserved() -> int:
        async with handle.choose_replica() as selection:
            return int(await handle.dispatch(selection))

    async def both() -> list[int]:
        calls = [handle.remote(wait=0.05) for _ in range(20)]
        return await asyncio.gather(*[reserved() for _ in range(10)], *calls)

    assert len(asyncio.run(both())) == 30
    assert settled(handle) == 0
    replica_states = router_of(handle)._replica_states.values()
    assert [state.open + len(state.unanswered) for state in replica_states] == [0, 0]
    assert router_of(handle)._fleet.faults == 0


def test_scaling_up_and_down_is_followed() -> None:
    handle = deploy("scale", 1, strategy="round_robin")
    handle.remote().result()
    handle = deploy("scale", 3, strategy="round_robin")
    deadline = time.monotonic() + 30
    seen: set[int] = set()
    while len(seen) < 3 and time.monotonic() < deadline:
        seen.add(handle.remote().result())
    assert len(seen) == 3
    handle = deploy("scale", 1, strategy="round_robin")
    while len(router_of(handle)._replica_states) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len({handle.remote().result() for _ in range(6)}) == 1
    assert len([url for url in router_of(handle)._fleet.table.urls if url]) == 1


def test_a_killed_replica_costs_its_own_requests_only() -> None:
    handle = deploy("kill", 3, strategy="prefix_affinity", load_factor=3.0)
    home = handle.remote(Chat(TEXTS[0])).result()
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(lambda: handle.remote(wait=0.5).result()) for _ in range(6)]
        with pytest.raises(ray.exceptions.RayError):
            handle.remote(Chat(TEXTS[0]), die=True).result()
        after = [handle.remote(Chat(TEXTS[0])).result() for _ in range(5)]
        assert home not in after
        ended = [call.exception() for call in others]
    assert any(error is None for error in ended)
    assert all(error is None or isinstance(error, ray.exceptions.RayError) for error in ended)
    assert settled(handle) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_replica_that_raises_gets_probes_only(stream: bool) -> None:
    handle = deploy(f"raises{stream}", 3, strategy="least_connections")
    with pytest.raises(ray.exceptions.RayTaskError):
        handle.remote(sick=True).result()
    failed = 0
    for _ in range(60):
        try:
            if stream:
                assert len(list(handle.options(stream=True).stream.remote())) == 3
            else:
                handle.remote().result()
        except ray.exceptions.RayTaskError:
            failed += 1
    assert 1 <= failed <= 8
    assert settled(handle) == 0
    router = router_of(handle)
    known = [router._fleet.monitor.standing(state.url) for state in router._replica_states.values()]
    assert [standing.reason for standing in known if standing is not None] == ["status"]


def test_a_failing_strategy_fails_no_request() -> None:
    handle = deploy("broken", 2, strategy="least_connections")
    handle.remote().result()
    router = router_of(handle)

    def broken(*_args: Any) -> str:
        raise ZeroDivisionError("boom")

    router._fleet.router.route_request = broken
    for _ in range(5):
        handle.remote().result()
    assert router._fleet.faults == 5


def test_refused_settings_leave_serve_routing() -> None:
    handle = deploy("refused", 2, strategy="fastest")
    assert {handle.remote().result() for _ in range(20)}
    assert router_of(handle)._fleet is None


def test_shadow_mode_changes_nothing_and_records(tmp_path: Any) -> None:
    path = tmp_path / "shadow.jsonl"
    handle = deploy("shadow", 2, strategy="expected_latency", mode="shadow", shadow_file=str(path))
    for _ in range(10):
        handle.remote(Chat(TEXTS[0]), wait=0.05).result()  # what is quicker is taken for no engine
    assert settled(handle) == 0
    router_of(handle)._fleet.shadow.close()
    found = summarise([path])
    assert found.requests == 10
    assert found.hit_rate["ours"] > 0.7  # new to each of two replicas once, at most
    assert found.hit_rate["host"] is not None and found.latency_ms["ours"] is not None
    assert found.took_ms is not None


def test_with_a_hold_calls_wait_and_beyond_its_bounds_the_caller_is_told_when_to_come() -> None:
    settings = {"strategy": "prefix_cache", "hold": True, "kv_tokens": 1_000.0}
    handle = deploy("held", 1, **settings)
    calls = [handle.remote(Chat(text), wait=0.3) for text in TEXTS[:3]]
    assert len({call.result() for call in calls}) == 1
    hold = router_of(handle)._fleet.router.hold
    # Serve asks again where a replica is slow to say how many requests it has.
    assert hold.counts.admitted >= 3 and hold.counts.held >= 1 and hold.counts.waiting == 0
    assert settled(handle) == 0
    shut = deploy("shut", 1, hold_limits={"max_requests": 0}, **settings)
    assert shut.remote(Chat(TEXTS[2])).result() and settled(shut) == 0
    first = shut.remote(Chat(TEXTS[0]), wait=5.0)
    while not router_of(shut)._fleet.monitor.in_flight:
        time.sleep(0.02)
    with pytest.raises(BackPressureError) as refused:
        shut.remote(Chat(TEXTS[1])).result()
    assert (refused.value.status_code, refused.value.retry_after_s) == (429, 1.0)
    assert first.result() and settled(shut) == 0
    assert shut.remote(Chat(TEXTS[1])).result()


def eventually(happened: Callable[[], object], said: str) -> None:
    """Wait for what Serve's own loop does."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def test_who_waits_is_shown_and_may_leave_and_nothing_is_left(tmp_path: Any) -> None:
    go, hold = tmp_path / "go", {"strategy": "prefix_cache", "hold": True, "kv_tokens": 1_000.0}
    handle = deploy("queue", 2, hold_limits={"max_requests": 3}, **hold)
    handle.remote().result()
    router, texts = router_of(handle), iter(TEXTS)
    counts, monitor = lambda: router._fleet.router.hold.counts, router._fleet.monitor
    assert settled(handle) == 0 and router.held() == ()
    calls = []
    for number in range(2):
        calls.append(handle.remote(Chat(next(texts)), until=str(go)))
        eventually(lambda n=number: monitor.in_flight == n + 1, "it went nowhere")
    assert {state.open for state in router._replica_states.values()} == {1}
    calls += [handle.remote(Chat(next(texts)), until=str(go)) for _ in range(3)]
    eventually(lambda: len(router.held()) == 3, "not all of them wait")
    for ahead, one in enumerate(router.held()):
        assert one.ahead == ahead and one.waits is not None and one.waits.waiting == 3
        assert one.waits.url in router._by_url
        assert one.waits.in_use_tokens + one.waits.added_tokens > one.waits.room_tokens
    with pytest.raises(BackPressureError):
        handle.remote(Chat(next(texts))).result()
    calls.pop(3).cancel()
    eventually(lambda: len(router.held()) == 2, "the one that left still waits")
    assert (counts().waiting, counts().left, counts().rejected["requests"]) == (2, 1, 1)
    go.touch()
    assert all(call.result() for call in calls)
    assert settled(handle) == 0 and router.held() == () and counts().waiting == 0
    assert handle.remote(Chat(next(texts))).result() and settled(handle) == 0
    assert {(s.open, len(s.unanswered)) for s in router._replica_states.values()} == {(0, 0)}
    assert router._fleet.faults == 0 and not router._accepted


def test_the_http_proxy_answers_429_where_a_hold_refuses() -> None:
    deploy(
        *("busy", 1),
        route="/busy",
        strategy="prefix_cache",
        kv_tokens=100.0,
        hold=True,
        hold_limits={"max_requests": 0},
    )
    url = f"http://127.0.0.1:{PORT}/busy"

    def get(number: int) -> httpx.Response:
        return httpx.get(url, params={"wait": 3.0, "number": number}, timeout=60)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(get, range(4)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}


def test_the_http_proxy_keeps_sessions_together() -> None:
    deploy("http", 3, route="/http", strategy="session_affinity")
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client:
        homes = {
            session: {
                client.get("/http", headers={"x-session-id": session}).json() for _ in range(5)
            }
            for session in "abcdefghij"
        }
    assert all(len(pids) == 1 for pids in homes.values())
    assert len(set().union(*homes.values())) > 1
