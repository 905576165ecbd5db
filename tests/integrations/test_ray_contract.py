"""The Ray Serve adapter against a stand-in of Serve's router: no Ray needed."""

import asyncio
import gc
import importlib
import itertools
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import ray_stand_in
from ray_stand_in import Pending, Replica
from replica_servers import until

TEXTS = [f"conversation {i} " + f"{i:03d}" * 200 for i in range(40)]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    yield ray_stand_in.install(monkeypatch)
    for name in [m for m in sys.modules if m.startswith("routecore.integrations.ray_serve")]:
        del sys.modules[name]


@pytest.fixture
def make(metrics: dict[str, float]) -> Callable[..., Any]:
    module = importlib.import_module("routecore.integrations.ray_serve")

    def made(number: int = 4, **kwargs: Any) -> Any:
        router = module.RoutecoreRequestRouter(SimpleNamespace(name="deployment", app_name="app"))
        router.initialize_state(**{"seed": 1, **kwargs})
        router.update_replicas([Replica(f"r{i}") for i in range(number)])
        return router

    return made


def ranks(router: Any, pending: Pending | None) -> list[list[str]]:
    async def inside() -> Any:
        return await router.choose_replicas(list(router._replicas.values()), pending)

    return [[r.replica_id.unique_id for r in rank] for rank in asyncio.run(inside())]


def serve(router: Any, pending: Pending) -> Any:
    """Choose, send, accept: what Serve does; gives the replica."""
    name = ranks(router, pending)[0][0]
    replica_id = next(r for r in router._replicas if r.unique_id == name)
    router.on_send_request(replica_id)
    router.on_request_routed(pending, replica_id, None)
    return replica_id


def in_flight(router: Any) -> dict[str, float]:
    table = router._fleet.table
    loads = zip(table.urls, table.column("in_flight"), strict=True)
    return {url[-2:]: load for url, load in loads if url is not None}


def test_a_conversation_returns_to_its_replica_and_the_rest_follow(make: Any) -> None:
    router = make(strategy="prefix_affinity")
    homes = {}
    for number, text in enumerate(TEXTS):
        pending = Pending(number, SimpleNamespace(prompt=text))
        first, rest = ranks(router, pending)
        assert pending.routing_context.should_backoff
        assert sorted(first + rest) == ["r0", "r1", "r2", "r3"]
        homes[text] = first
        router._fleet.monitor.get_request_stats(2.0e9 + 10.0 * number)  # choices lapse
    assert len({home[0] for home in homes.values()}) == 4
    again = make(strategy="prefix_affinity")  # another router process
    assert [ranks(again, Pending(0, {"prompt": TEXTS[5]}))[0]] == [homes[TEXTS[5]]]


def test_requests_count_from_sending_to_their_one_end(make: Any) -> None:
    router = make(2, strategy="least_connections")
    a = serve(router, Pending(1, "x"))
    b = serve(router, Pending(2, "x"))
    assert a != b
    assert in_flight(router) == {"r0": 1, "r1": 1}
    router.on_request_completed(a, "r1")
    router.on_request_completed(a, "r1")
    router.on_request_completed(a, "never sent")
    assert in_flight(router)[a.unique_id] == 0
    assert router._fleet.monitor.in_flight == 1
    assert serve(router, Pending(3, "x")) == a


def test_a_rejection_leaves_the_load_and_is_no_latency(make: Any) -> None:
    router = make(1, strategy="least_connections")
    replica_id = next(iter(router._replicas))
    served = Pending(1, "x")
    serve(router, served)
    router.on_send_request(replica_id)
    router.on_new_queue_len_info(replica_id, 1)
    router.on_request_completed(replica_id, "rejected")
    assert in_flight(router) == {"r0": 1}
    router.on_request_completed(replica_id, served.metadata.internal_request_id)
    assert in_flight(router) == {"r0": 0}
    stats = router._fleet.monitor.get_request_stats(0.0)[replica_id.to_full_id_str()]
    assert stats.finished_requests == 1
    assert not router._accepted


def test_an_end_reported_before_the_acceptance_leaves_nothing_behind(make: Any) -> None:
    router = make(1, strategy="least_connections")
    replica_id = next(iter(router._replicas))
    for number in range(600):
        pending = Pending(number, "x")
        router.on_send_request(replica_id)
        router.on_request_completed(replica_id, pending.metadata.internal_request_id)
        if number % 2:  # the others were rejected
            router.on_request_routed(pending, replica_id, None)
    assert in_flight(router) == {"r0": 0}
    assert not router._accepted
    assert len(router._over) <= 256


def test_a_reserved_slot_that_was_never_sent_ends_nobody_elses_request(make: Any) -> None:
    router = make(1, strategy="least_connections")
    replica_id = serve(router, Pending(1, "x"))
    router.on_request_completed(replica_id, "reserved")
    assert in_flight(router) == {"r0": 1}


def test_routers_that_share_count_nobody_twice(
    make: Any, metrics: dict[str, float], tmp_path: Path
) -> None:
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    shared = {"strategy": "least_connections", "replicas": f"zmq+ipc://{tmp_path}"}
    router, other = make(2, **shared), make(2, **shared)
    theirs = serve(other, Pending(1, "x"))
    name = theirs.unique_id
    until(lambda: in_flight(router)[name] == 1, "the other's request is not heard of")
    mine = serve(router, Pending(2, "x"))
    assert mine != theirs
    router.on_new_queue_len_info(theirs, 1)  # the one that it has heard of
    assert in_flight(router)[name] == 1
    router.on_new_queue_len_info(theirs, 3)  # and two that it has not
    assert in_flight(router)[name] == 3
    until(lambda: router._tick() or in_flight(router)[name] == 1, "an old report still counts")
    until(lambda: router._tick() or metrics["routecore_replica_peers"] == 1, "no metric of it")
    other.on_request_completed(theirs, "r1")
    until(lambda: in_flight(router)[name] == 0, "the other's request has not ended")
    serve(other, Pending(3, "x"))
    until(lambda: router._fleet.replicas.peers, "the other is not heard")
    gone = other._fleet.replicas
    del other
    gc.collect()
    until(lambda: not any(one.is_alive() for one in gone._threads), "a router lives for ever")
    until(lambda: not router._fleet.replicas.peers, "it has said no good-bye")
    assert in_flight(router)[mine.unique_id] == 1
    router._fleet.replicas.close()


def test_queue_lengths_count_what_other_routers_sent(make: Any) -> None:
    router = make(2, strategy="least_connections")
    busy = serve(router, Pending(1, "x"))
    router.on_new_queue_len_info(busy, 4)  # ours and three more
    assert in_flight(router)[busy.unique_id] == 4
    for number in range(2, 5):
        assert serve(router, Pending(number, "x")) != busy
    router.on_new_queue_len_info(busy, 0)  # an end that has not reached us yet
    assert in_flight(router)[busy.unique_id] == 1


def test_an_old_queue_length_is_forgotten(make: Any, metrics: dict[str, float]) -> None:
    router = make(2, strategy="least_connections")
    busy = next(iter(router._replicas))
    router.on_new_queue_len_info(busy, 4)
    router._tick()
    assert in_flight(router)[busy.unique_id] == 4
    router.replica_queue_len_cache.clear()  # Serve's own timeout
    router._tick()
    assert in_flight(router)[busy.unique_id] == 0


def test_a_retry_is_not_taken_for_the_try_that_was_rejected(make: Any) -> None:
    router = make(2, strategy="least_connections")
    first, second = router._replicas
    pending = Pending(1, "x")
    router.on_send_request(first)
    router.on_send_request(second)  # rejected by the first: sent again before that is over
    router.on_request_routed(pending, second, None)
    router.on_request_completed(first, "r1")
    assert in_flight(router) == {"r0": 0, "r1": 1}
    router.on_request_completed(second, "r1")
    assert in_flight(router) == {"r0": 0, "r1": 0}


class Try(NamedTuple):
    pending: Pending
    replica_id: Any


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_counts_follow_any_order_of_events(make: Any, seed: int, reserved: bool) -> None:
    draw = random.Random(seed)
    router = make(4, strategy="least_connections")
    fresh = itertools.count(10)
    sent: list[Try] = []  # neither accepted nor rejected
    served: list[Try] = []
    refused: list[Try] = []  # rejected, and its end is not reported yet

    def send(pending: Pending) -> None:
        one = Try(pending, draw.choice(list(router._replicas)))
        router.on_send_request(one.replica_id)
        sent.append(one)

    def over(one: Try) -> None:
        router.on_request_completed(one.replica_id, one.pending.metadata.internal_request_id)

    def take(some: list[Try]) -> Try:
        return some.pop(draw.randrange(len(some)))

    for number in range(400):
        event = draw.choice(["send", "send", "accept", "reject", "early", "end", "die", "grow"])
        if event == "send":
            send(Pending(number, "x"))
        elif event == "accept" and sent:
            one = take(sent)
            router.on_request_routed(one.pending, one.replica_id, None)
            served.append(one)
        elif event == "early" and sent:
            one = take(sent)
            over(one)
            router.on_request_routed(one.pending, one.replica_id, None)
        elif event == "reject" and sent:
            one = take(sent)
            refused.append(one)
            send(one.pending)
        elif event == "end":
            for some in (served, refused):
                if some:
                    over(take(some))
        elif event == "die" and len(router._replicas) > 2:
            router.on_replica_actor_died(draw.choice(list(router._replicas)))
        elif event == "grow" and len(router._replicas) < 6:
            added = Replica(f"r{next(fresh)}")
            router.update_replicas([*router._replicas.values(), added])
        if reserved and number % 5 == 0:
            router.on_request_completed(draw.choice(list(router._replicas)), f"slot{number}")
            continue  # it may end another's request early, for as long as that lasts
        if not reserved:
            alive = Counter(one.replica_id for one in sent + served + refused)
            for replica_id in router._replicas:
                row = router._fleet.table.core.row(replica_id.to_full_id_str())
                assert router._fleet.table.column("in_flight")[row] == alive[replica_id]
    for one in sent:
        router.on_request_routed(one.pending, one.replica_id, None)
    for one in sent + served + refused:
        over(one)
    assert router._fleet.monitor.in_flight == 0
    assert not router._accepted
    assert all(
        state.open == 0 and not state.unanswered for state in router._replica_states.values()
    )


def test_a_dead_replica_takes_its_requests_along(make: Any) -> None:
    router = make(3, strategy="least_connections")
    dead = serve(router, Pending(1, "x"))
    router.on_replica_actor_died(dead)
    router.on_request_completed(dead, "r1")
    router.on_send_request(dead)
    assert router._fleet.monitor.in_flight == 0
    assert dead.unique_id not in in_flight(router)
    for number in range(9):
        assert all(dead.unique_id not in rank for rank in ranks(router, Pending(number, "x")))


def test_a_new_replica_is_used_at_once_and_those_that_stay_keep_their_load(make: Any) -> None:
    router = make(2, strategy="least_connections")
    for number in range(4):
        serve(router, Pending(number, "x"))
    router.update_replicas([*router._replicas.values(), Replica("r9")])
    assert in_flight(router) == {"r0": 2, "r1": 2, "r9": 0}
    assert serve(router, Pending(5, "x")).unique_id == "r9"
    router.update_replicas([r for r in router._replicas.values() if r.replica_id[0] != "r0"])
    assert in_flight(router) == {"r1": 2, "r9": 1}


def test_an_unavailable_replica_waits_for_a_probe(make: Any) -> None:
    router = make(2, strategy="round_robin")
    away = next(iter(router._replicas))
    router.on_replica_actor_unavailable(away)
    firsts = {ranks(router, Pending(n, "x"))[0][0] for n in range(6)}
    assert firsts == {"r1"}
    assert ranks(router, Pending(7, "x"))[1] == ["r0"]  # still offered after ours
    router.replica_queue_len_cache[away] = 0
    router._tick()
    assert {ranks(router, Pending(n, "x"))[0][0] for n in range(6)} == {"r0", "r1"}


def test_all_unavailable_is_left_to_power_of_two(make: Any, metrics: dict[str, float]) -> None:
    router = make(3, strategy="round_robin")
    for replica_id in list(router._replicas):
        router.on_replica_actor_unavailable(replica_id)
    assert [len(rank) for rank in ranks(router, Pending(1, "x"))] == [2]
    assert metrics["routecore_decisions fallback"] == 1


def test_a_failing_strategy_fails_no_request_and_is_logged_once(
    make: Any, metrics: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    router = make(3, strategy="least_connections")

    def broken(*_args: Any) -> str:
        raise ZeroDivisionError("boom")

    router._fleet.router.route_request = broken
    for number in range(5):
        (two,) = ranks(router, Pending(number, "x"))
        assert len(set(two)) == 2
    assert metrics["routecore_decisions fallback"] == 5
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 1
    assert "ZeroDivisionError: boom" in lines[0]


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"strategy": "fastest"}, "unknown 'fastest'; valid: round_robin"),
        ({"strategy": "round_robin", "wieghts": 1}, "takes no parameter 'wieghts'"),
        ({"strategy": "prefix_affinity", "load_factor": "x"}, "load_factor"),
        ({"mode": "shade"}, "mode"),
    ],
)
def test_refused_settings_are_named_and_serve_routes(
    make: Any, caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], said: str
) -> None:
    router = make(3, **kwargs)
    assert any(said in r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    (two,) = ranks(router, Pending(1, "x"))
    assert len(two) == 2
    replica_id = serve(router, Pending(2, "x"))
    router.on_request_completed(replica_id, "r2")


def test_a_multiplexed_model_is_served_where_it_is(make: Any) -> None:
    router = make(4, strategy="least_connections")
    for replica in list(router._replicas.values())[1:3]:
        replica.multiplexed_model_ids.add("lora")
    for number in range(6):
        first, rest = ranks(router, Pending(number, "x", model="lora"))
        assert sorted(first + rest) == ["r1", "r2"]
    assert ranks(router, Pending(7, "x", model="nowhere")) == []


def test_a_session_stays(make: Any) -> None:
    router = make(4, strategy="session_affinity")
    homes = {
        session: {ranks(router, Pending(n, object(), session=session))[0][0] for n in range(5)}
        for session in "abcdefgh"
    }
    assert all(len(home) == 1 for home in homes.values())
    assert len(set().union(*homes.values())) > 1
    by_field = ranks(make(4, strategy="session_affinity", session_key="user"), Pending(
        1, {"prompt": "x", "user": "a"}))  # fmt: skip
    assert by_field[0] == list(homes["a"])


def test_a_full_fleet_is_not_probed_as_a_whole(make: Any) -> None:
    router = make(40, strategy="least_connections")
    for replica_id in list(router._replicas)[:35]:
        router.on_send_request(replica_id)
    first, rest = ranks(router, Pending(1, "x"))
    assert len(rest) == 8
    idle = {f"r{i}" for i in range(35, 40)}
    assert set(first) <= idle
    assert idle - set(first) <= set(rest)


def test_shadow_mode_lets_serve_choose_and_records_both(
    make: Any, metrics: dict[str, float], tmp_path: Path
) -> None:
    path = tmp_path / "shadow.jsonl"
    router = make(3, strategy="prefix_affinity", mode="shadow", shadow_file=str(path))
    replica_ids = list(router._replicas)
    for number in range(3):
        pending = Pending(number, {"prompt": TEXTS[0]})
        assert [len(rank) for rank in ranks(router, pending)] == [2]
        router.on_send_request(replica_ids[number])
        router.on_request_routed(pending, replica_ids[number], None)
        router.on_request_completed(replica_ids[number], f"r{number}")
    router._fleet.shadow.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["host"][-2:] for r in records] == ["r0", "r1", "r2"]
    assert len({r["ours"] for r in records}) == 1
    # Each replica of Serve's sees the prompt for the first time, ours only once.
    assert [r.get("host_hit_tokens", 0) for r in records] == [0, 0, 0]
    assert [r.get("our_hit_tokens", 0) for r in records] == [0, 128, 128]
    assert all(r["took_ms"] >= 0 for r in records)
    assert set(in_flight(router).values()) == {0}
    assert metrics["routecore_decisions shadow"] == 3
    assert not router._shadowed


def test_metrics_go_to_the_host_and_one_line_says_what_runs(
    make: Any, metrics: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    router = make(2, strategy="prefix_affinity", load_factor=2.0)
    started = [r.getMessage() for r in caplog.records if "prefix_affinity" in r.getMessage()]
    assert len(started) == 1
    assert "load_factor=2.0" in started[0]
    serve(router, Pending(1, "x"))
    router._tick()
    assert metrics["routecore_decisions strategy"] == 1
    assert metrics["routecore_in_flight_requests"] == 1


def test_an_older_router_of_the_deployment_is_named(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old = make(strategy="round_robin")
    make(strategy="round_robin")
    assert "older router" not in caplog.text
    make(strategy="least_connections")
    assert "older router of this deployment lives on in this process, with round_robin" in (
        caplog.text
    )
    assert old is not None


def test_prompts_are_found_wherever_a_call_carries_them(metrics: dict[str, float]) -> None:
    body_of = importlib.import_module("routecore.integrations.ray_serve.prompt").body_of
    part = SimpleNamespace(type="text", text="hi")
    message = SimpleNamespace(role="user", content=[part], name=None)
    chat = SimpleNamespace(messages=[message], model="m", tools=None, prompt=None)
    assert body_of([object(), chat], {}, None, "") == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "model": "m",
    }
    tokens = SimpleNamespace(prompt=[1, 2, 3], model=None, user="u")
    assert body_of([], {"request": tokens}, "user", "lora") == {
        "prompt": [1, 2, 3],
        "model": "lora",
        "user": "u",
    }
    assert body_of([{"messages": [{"role": "user"}]}], {}, None, "") == {
        "messages": [{"role": "user"}],
        "model": "",
    }
    assert body_of([7, "text"], {}, None, "") == {"prompt": "text", "model": ""}
    assert body_of([7], {"prompt": "named"}, None, "") == {"prompt": "named", "model": ""}
    assert body_of([7, None, object()], {}, None, "") is None
    lazy = iter(["not", "ours", "to", "read"])
    body_of([{"messages": [{"role": "user", "content": lazy}]}], {}, None, "")
    assert next(lazy) == "not"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [m for m in sys.modules if m.startswith("routecore.integrations.ray_serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    with pytest.raises(ImportError, match=r"pip install 'routecore\[ray\]'"):
        # The class is what Ray Serve asks for; the package alone can be imported without it.
        _ = importlib.import_module("routecore.integrations.ray_serve").RoutecoreRequestRouter


async def _until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


# A prompt of some 6,000 tokens on replicas taken to hold 8,000: one fits, a second does not.
HELD = {"strategy": "prefix_cache", "hold": True, "kv_tokens": 8_000.0}


def held(number: int) -> Pending:
    return Pending(number, SimpleNamespace(prompt=f"{number:05d} of its own " * 1_200))


def send(router: Any, pending: Pending, rank: list[list[Any]]) -> Any:
    replica_id = rank[0][0].replica_id
    router.on_send_request(replica_id)
    router.on_request_routed(pending, replica_id, None)
    return replica_id


def test_with_a_hold_requests_wait_until_a_replica_has_room(
    make: Any, metrics: dict[str, float]
) -> None:
    router = make(number=2, **HELD)

    async def inside() -> None:
        def choose(pending: Pending) -> asyncio.Task[Any]:
            return asyncio.create_task(
                router.choose_replicas(list(router._replicas.values()), pending)
            )

        first, second, third, fourth = (held(number) for number in range(4))
        home = send(router, first, await choose(first))
        before = await choose(second)
        assert await choose(second) == before, "asked again, it does not wait for its own place"
        other = send(router, second, before)
        assert {home.unique_id, other.unique_id} == {"r0", "r1"}
        hold, waits, leaves = router._fleet.router.hold, choose(third), choose(fourth)
        await _until(lambda: hold.counts.waiting == 2)
        router._tick()
        assert metrics["routecore_waiting_requests"] == 2
        oldest, last = router.held()
        assert (oldest.ahead, last.ahead) == (0, 1)
        assert oldest.waits is not None and oldest.waits.url in router._by_url
        assert oldest.waits.in_use_tokens + oldest.waits.added_tokens > oldest.waits.room_tokens
        assert "waits for room at" in str(oldest) and "2 requests wait" in str(oldest)
        assert metrics["routecore_waited_seconds"] == 2, "two went, and at once"
        leaves.cancel()  # as Serve does when the caller leaves
        await _until(leaves.done)
        assert (hold.counts.waiting, waits.done()) == (1, False)
        router.on_request_completed(other, second.metadata.internal_request_id)
        assert (await waits)[0][0].replica_id == other
        assert (hold.counts.held, hold.counts.left, hold.counts.waiting) == (1, 1, 0)
        assert (router.held(), metrics["routecore_waited_seconds"]) == ((), 3)
        waited = metrics["sum of routecore_waited_seconds"]
        assert waited == pytest.approx(hold.counts.waited_s) and waited > 0

    asyncio.run(inside())


def test_who_waits_finds_a_replica_that_came_meanwhile_and_nobody_where_all_left(
    make: Any,
) -> None:
    router = make(number=1, **HELD)

    async def inside() -> None:
        def choose(pending: Pending) -> asyncio.Task[Any]:
            return asyncio.create_task(
                router.choose_replicas(list(router._replicas.values()), pending)
            )

        first, second, third = (held(number) for number in range(3))
        home = send(router, first, await choose(first))
        hold, waits = router._fleet.router.hold, choose(second)
        await _until(lambda: hold.counts.waiting == 1)
        router.update_replicas([*router._replicas.values(), Replica("r9")])
        hold.pump()
        found = (await waits)[0]
        assert [replica.replica_id.unique_id for replica in found] == ["r9"]
        send(router, second, [found])
        last = choose(third)
        await _until(lambda: hold.counts.waiting == 1)
        router.update_replicas([])
        hold.pump()
        assert (await last, third.future.done(), router._fleet.faults) == ([[]], False, 0)
        assert home.unique_id == "r0"

    asyncio.run(inside())


def test_beyond_the_bounds_of_a_hold_serves_own_error_says_when_to_come_again(
    make: Any, metrics: dict[str, float]
) -> None:
    router = make(number=1, hold_limits={"max_requests": 0}, **HELD)

    async def inside() -> None:
        first, second = held(0), held(1)
        send(router, first, await router.choose_replicas(list(router._replicas.values()), first))
        ranks = await router.choose_replicas(list(router._replicas.values()), second)
        assert [len(rank) for rank in ranks] == [1]  # so that Serve looks at the request, and stops
        assert isinstance(second.future.error, ray_stand_in.BackPressureError)
        assert (second.future.error.status_code, second.future.error.retry_after_s) == (429, 1.0)
        router._tick()
        assert metrics["routecore_rejected_requests requests"] == 1
        assert router._fleet.faults == 0

    asyncio.run(inside())
