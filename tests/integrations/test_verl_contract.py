"""verl's rollout router against its protocol, called as verl's client calls it; no Ray needed."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from routecore import RouteError
from routecore.integrations.verl import RoutecoreRouter
from routecore.integrations.verl import open_calls as calls

STEPS = [("prefix_cache", 20), ("expected_latency", 32)]
OFF = {"forget_after_idle": 0}
SERVERS = {f"10.0.0.{at}:8000": f"handle {at}" for at in range(4)}


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, servers: dict[str, Any] | None = None, **file: Any) -> RoutecoreRouter:
    file = {"router_class": "routecore.integrations.verl.RoutecoreRouter", "seed": 1, **file}
    return RoutecoreRouter(SERVERS if servers is None else servers, file, clock=clock)


def prompt(number: int, tokens: int = 2048) -> list[int]:
    return np.random.default_rng(number).integers(0, 150_000, tokens).tolist()


def test_a_call_is_counted_from_its_acquiring_to_its_release(clock: Clock) -> None:
    router = made(clock)
    server, handle = router.acquire_server(request_id="a", prompt_ids=prompt(1))
    assert handle == SERVERS[server]
    assert router.get_status()["servers"] == {s: int(s == server) for s in SERVERS}
    assert (router.get_total_inflight(), router.get_inflight_count(server)) == (1, 1)
    router.release_server(server_id=server, request_id="a")
    status = router.get_status()
    assert (status["total_inflight"], status["active_servers"]) == (0, 4)
    assert router._fleet.monitor.in_flight == 0


def test_declared_fields_are_what_is_read(clock: Clock) -> None:
    router = made(clock)
    assert router.require_acquire_fields() == ["prompt_ids"]
    assert router.require_release_fields() == ["request_id"]


def test_releases_that_nobody_knows_change_nothing(clock: Clock) -> None:
    router = made(clock)
    one, _ = router.acquire_server("a", prompt_ids=prompt(1))
    router.release_server("elsewhere:1", request_id="a")
    router.release_server(one, request_id="b")
    router.release_server(next(s for s in SERVERS if s != one), request_id="a")
    assert router.get_total_inflight() == 1
    router.release_server(one, request_id="a")
    router.release_server(one, request_id="a")
    assert router.get_total_inflight() == router._fleet.monitor.in_flight == 0


def test_a_release_without_a_request_ends_the_oldest_of_its_server(clock: Clock) -> None:
    router = made(clock, {"only": None})
    for name in "abc":
        router.acquire_server(name)
    router.release_server("only")
    router.release_server("only", request_id="a")  # it has ended
    assert router.get_total_inflight() == 2
    router.release_server("only", request_id="c")
    router.release_server("only")
    assert router.get_total_inflight() == 0


def test_turns_of_one_conversation_at_once_are_counted_each(clock: Clock) -> None:
    router = made(clock, {"only": None})
    for _ in range(3):
        router.acquire_server("same", prompt_ids=prompt(1))
    assert router.get_total_inflight() == router._fleet.monitor.in_flight == 3
    for left in (2, 1, 0):
        router.release_server("only", request_id="same")
        assert router.get_total_inflight() == left


def test_an_empty_pool_says_what_verls_client_waits_for(clock: Clock) -> None:
    router = made(clock, {})
    with pytest.raises(RuntimeError, match="No available servers in load balancer"):
        router.acquire_server("a", prompt_ids=prompt(1))
    router.add_servers({"s": "h"})
    assert router.acquire_server("a", prompt_ids=prompt(1)) == ("s", "h")
    router.remove_servers(["s", "never there"])
    with pytest.raises(RuntimeError, match="No available servers"):
        router.acquire_server("b")
    assert router.get_all_servers() == []


def test_a_server_that_left_takes_its_calls_along(clock: Clock) -> None:
    router = made(clock)
    held = {router.acquire_server(str(n), prompt_ids=prompt(n))[0]: str(n) for n in range(12)}
    gone = next(iter(SERVERS))
    before = router.get_inflight_count(gone)
    router.remove_servers([gone])
    assert router.get_total_inflight() == 12 - before == router._fleet.monitor.in_flight
    router.add_servers({gone: "new"})
    router.release_server(gone, request_id=held[gone])  # of before: it is not counted any more
    assert router.get_inflight_count(gone) == 0
    assert router.get_total_inflight() == 12 - before


def test_a_server_that_is_added_again_keeps_its_calls_unless_it_is_another(clock: Clock) -> None:
    router = made(clock, {"s": "h"})
    router.acquire_server("a", prompt_ids=prompt(1))
    router.add_servers({"s": "h"})
    assert router.get_total_inflight() == 1
    router.add_servers({"s": "another"})
    assert router.get_total_inflight() == router._fleet.monitor.in_flight == 0
    assert router.acquire_server("b")[1] == "another"


@pytest.mark.parametrize(("strategy", "homes_at_most"), STEPS)
def test_samples_of_a_prompt_share_servers_and_a_step_is_even(
    clock: Clock, strategy: str, homes_at_most: int
) -> None:
    """16 samples of 8 prompts, all at once, before anything is released."""
    router = made(clock, strategy=strategy)
    homes = {group: Counter[str]() for group in range(8)}
    for group, _ in itertools.product(range(8), range(16)):
        server, _ = router.acquire_server(f"{group}-{_}", prompt_ids=prompt(group, 6000))
        homes[group][server] += 1
    loads = sum(homes.values(), Counter[str]())
    assert max(loads.values()) <= 1.5 * 128 / 4
    assert sum(len(found) for found in homes.values()) <= homes_at_most  # 32: each everywhere


def test_turns_of_a_conversation_come_back(clock: Clock) -> None:
    router = made(clock)
    ids = {name: prompt(name, 3000) for name in range(12)}
    homes: dict[int, set[str]] = {name: set() for name in ids}
    for turn in range(4):
        for name in ids:
            clock.now += 0.5
            ids[name] += prompt(100 * turn + name, 400)
            server, _ = router.acquire_server(str(name), prompt_ids=ids[name])
            homes[name].add(server)
            clock.now += 0.5
            router.release_server(server, request_id=str(name))
    assert all(len(found) == 1 for found in homes.values())


def held(router: RoutecoreRouter) -> int:
    return sum(router._fleet.table.core.held(server)[0] for server in SERVERS)


def test_new_weights_leave_nothing_in_the_caches(clock: Clock) -> None:
    router = made(clock)
    server, _ = router.acquire_server("a", prompt_ids=prompt(1))
    clock.now += 1
    router.release_server(server, request_id="a")
    still, _ = router.acquire_server("b", prompt_ids=prompt(2))
    assert held(router) >= 2 * 2048 / 16 - 2
    cleared = router.clear_sticky_cache()
    assert cleared["cleared_entries"] >= 2 * 2048 / 16 - 2
    assert cleared["server_loads"] == {s: int(s == still) for s in SERVERS}
    assert held(router) == 0
    router.release_server(still, request_id="b")
    assert router.get_total_inflight() == router._fleet.monitor.in_flight == 0
    assert router.clear_sticky_cache()["cleared_entries"] == 0


@pytest.mark.parametrize(
    ("pause", "file", "blocks"),
    [(4, {}, 101), (6, {}, 1), (6, {"forget_after_idle": 10}, 101), (6e3, OFF, 101)],
)
def test_a_pause_is_an_update_of_weights(
    clock: Clock, pause: float, file: dict[str, Any], blocks: int
) -> None:
    """A synchronous trainer calls nothing: rollout stops, and goes on with new weights."""
    router = made(clock, **file)
    server, _ = router.acquire_server("a", prompt_ids=prompt(1, 1600))
    clock.now += 60
    router.release_server(server, request_id="a")
    clock.now += pause
    router.acquire_server("b", prompt_ids=prompt(2, 16))
    assert held(router) == blocks


def test_a_pause_while_calls_are_in_flight_is_none(clock: Clock) -> None:
    router = made(clock)
    for name in "ab":
        where, _ = router.acquire_server(name, prompt_ids=prompt(1, 1600))
    clock.now += 1
    router.release_server(where, request_id="b")
    clock.now += 60
    router.acquire_server("c", prompt_ids=prompt(2, 16))
    assert held(router) > 100


@pytest.mark.parametrize("ids", [np.arange(2048), tuple(range(2048)), range(2048)])
def test_ids_come_in_any_form(clock: Clock, ids: Any) -> None:
    router = made(clock)
    home, _ = router.acquire_server("a", prompt_ids=list(range(2048)))
    clock.now += 1
    router.release_server(home, request_id="a")
    assert router.acquire_server("b", prompt_ids=ids)[0] == home
    assert router.get_status()["fallbacks"] == 0


@pytest.mark.parametrize("ids", [[], ["a"], [-1] * 40, [2**70] * 40, [None], "text", 5, [[1, 2]]])
def test_no_prompt_ends_a_rollout(clock: Clock, ids: Any) -> None:
    router = made(clock)
    for name in range(40):
        router.acquire_server(str(name), prompt_ids=ids, unheard_of=1)
    assert set(router.get_status()["servers"].values()) == {10}


def test_a_strategy_that_fails_leaves_the_choice_to_load(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = made(clock)

    def fail(*_: Any) -> str:
        raise ValueError("broken")

    monkeypatch.setattr(router._fleet.router, "route_request", fail)
    for name in range(8):
        router.acquire_server(str(name), prompt_ids=prompt(name))
    assert set(router.get_status()["servers"].values()) == {2}
    assert router.get_status()["fallbacks"] == 8


def test_a_session_strategy_goes_by_the_conversation(clock: Clock) -> None:
    router = made(clock, strategy="session_affinity")
    homes = {name: router.acquire_server(name)[0] for name in map(str, range(20))}
    assert len(set(homes.values())) > 1
    assert homes == {name: router.acquire_server(name)[0] for name in homes}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ({"strategy": "prefix_cach"}, "unknown 'prefix_cach'"),
        ({"load_factr": 2}, "no parameter 'load_factr'"),
        ({"strategy": "prefix_cache", "load_factor": "much"}, "load_factor"),
        ({"mode": "shadow"}, "mode has no effect here"),
        ({"forget_after_idle": -1}, "forget_after_idle: expected seconds, got -1"),
        ({"lease_timeout": 0}, "lease_timeout: expected seconds"),
        ({"params": 5}, "params: expected a mapping"),
    ],
)
def test_a_wrong_file_is_named(clock: Clock, file: dict[str, Any], text: str) -> None:
    with pytest.raises(RouteError, match=text):
        made(clock, **file)


def test_parameters_stand_beside_the_strategy_or_below_params(clock: Clock) -> None:
    flat = made(clock, strategy="prefix_cache", load_factor=2.0)
    nested = made(clock, strategy="prefix_cache", params={"load_factor": 2.0})
    assert flat._fleet.settings.params == nested._fleet.settings.params
    assert flat._fleet.settings.params["load_factor"] == 2.0


def test_calls_that_never_end_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routecore.integrations.verl.router.MAX_OPEN", 100)
    router = made(clock)
    for number in range(1000):
        router.acquire_server(f"{number}", prompt_ids=[number] * 40)
    assert router.get_total_inflight() == router._fleet.monitor.in_flight == 100
    assert len(router._open._names) == 100
    assert calls.MAX_OPEN == 1 << 18


def test_a_lease_ends_what_a_dead_worker_left(clock: Clock) -> None:
    router = made(clock, lease_timeout=50)
    router.acquire_server("a", prompt_ids=prompt(1))
    clock.now += 60
    router.acquire_server("b", prompt_ids=prompt(2))
    assert router._fleet.monitor.in_flight == 1
