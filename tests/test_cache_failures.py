"""What goes wrong in fleets with prefix caches, and does not here: one test per situation."""

import random
from collections import Counter
from typing import Any

import pytest
from cache_traffic import Fleet, text
from routecore import EndpointInfo, EngineStats

CACHE = [
    "prefix_cache",
    "expected_latency",
    "cache_aware",
    "dynamo_cost",
    "lmetric",
    "llm_d",
    "sticky_until_saturated",
]


def arrivals(fleet: Fleet, rate: float, seconds: float, prompt: Any, rng: random.Random) -> None:
    """Poisson arrivals; each stays about two seconds."""
    time = fleet.now
    while time < fleet.now + seconds:
        time += rng.expovariate(rate)
        stay = 0.5 + rng.expovariate(1 / 1.5)
        fleet.at(time, lambda stay=stay: fleet.send(prompt(), 0.1, stay) and None)


def test_a_hot_prefix_that_appears_mid_run_is_spread() -> None:
    fleet, rng = Fleet("prefix_cache", 8), random.Random(3)
    hot, turn = text("hot", 1024), iter(range(1_000_000))
    arrivals(fleet, 64, 20, lambda: text(next(turn), 200), rng)
    fleet.run(20.0)

    def mixed() -> str:
        return hot + text(next(turn), 50) if rng.random() < 0.6 else text(next(turn), 200)

    arrivals(fleet, 64, 60, mixed, rng)
    ratios = []
    for step in range(1, 240):
        fleet.run(20.0 + step / 4)
        load = fleet.column("in_flight")
        ratios.append(max(load) * len(load) / sum(load))
    # From the first moment on: the mean of what users meet, and nearly every glance.
    assert sum(ratios) / len(ratios) <= 1.35
    assert sorted(ratios)[int(0.99 * len(ratios))] <= 1.5
    assert len(fleet.held(hot)) >= 4  # replicated instead of queued for


@pytest.mark.parametrize("strategy", ["prefix_cache", "expected_latency", "lmetric"])
def test_siblings_in_one_tick_spread_before_anything_is_reported(strategy: str) -> None:
    fleet = Fleet(strategy, 4)
    chosen = Counter(fleet.route(text("siblings", 8000)) for _ in range(40))
    assert len(chosen) == 4
    assert max(chosen.values()) <= 20


def test_a_few_siblings_in_one_tick_stick_to_the_first() -> None:
    # The blocks of a choice count at once, so siblings share a prefill as long as load allows.
    fleet = Fleet("prefix_cache", 4, load_factor=8.0)
    assert len({fleet.route(text("siblings", 2000)) for _ in range(6)}) == 1


@pytest.mark.parametrize("strategy", CACHE)
def test_stale_scraped_stats_do_no_harm(strategy: str) -> None:
    # For ten seconds the scrape says that e0 is idle and all others are full.
    stale = {f"http://e{i}": EngineStats(num_running_requests=50 * i) for i in range(4)}
    fleet, rng, turn = Fleet(strategy, 4), random.Random(1), iter(range(1_000_000))
    chosen = Counter[str]()
    for _ in range(400):
        fleet.run(fleet.now + rng.expovariate(40))
        chosen[fleet.send(text(next(turn), 300), 0.1, 0.5, stale)] += 1
    assert max(chosen.values()) <= 1.5 * 100


@pytest.mark.parametrize("strategy", CACHE)
def test_ties_on_an_idle_fleet_are_drawn_and_repeat_under_a_seed(strategy: str) -> None:
    def run() -> list[str]:
        fleet = Fleet(strategy, 8, hash_seed=4)
        urls = []
        for i in range(60):
            urls.append(fleet.send(text(f"tie {i}", 100), 0.01, 0.02))
            fleet.run(fleet.now + 60.0)
        return urls

    first = run()
    assert first == run()
    assert max(Counter(first).values()) < 20


def test_traffic_of_a_removed_holder_spreads_and_leaves_no_phantom() -> None:
    fleet = Fleet("prefix_cache", 5)
    prompts = [text(f"held {i}", 600) for i in range(40)]
    home = {}
    for prompt in prompts:
        home[prompt] = fleet.send(prompt, 0.1, 0.2)
        fleet.run(fleet.now + 0.05)
    fleet.run(fleet.now + 5)
    gone = Counter(home.values()).most_common(1)[0][0]
    mine = [prompt for prompt in prompts if home[prompt] == gone]
    fleet.table.remove(gone)
    assert fleet.table.core.held(gone) == (0, 0, 0)
    fleet.endpoints = [e for e in fleet.endpoints if e.url != gone]
    for prompt in prompts:
        assert (fleet.held(prompt) == []) == (prompt in mine)
    moved = Counter(fleet.send(prompt, 0.1, 50.0) for prompt in mine)
    assert len(moved) >= 3
    # It comes back empty: nothing is known of it.
    fleet.endpoints.append(EndpointInfo(url=gone))
    assert all(gone not in fleet.held(prompt) for prompt in prompts)


def test_a_failed_request_leaves_no_phantom_hit() -> None:
    fleet = Fleet("prefix_cache", 3)
    prompt = text("fails", 500)
    url = fleet.route(prompt)
    fleet.monitor.on_new_request(url, "r", fleet.now)
    assert fleet.held(prompt) == [url]  # on its way, so siblings may count on it
    fleet.monitor.on_request_failed(url, "r", fleet.now + 1)
    assert fleet.held(prompt) == []
    assert fleet.blocks() == 0


def test_a_failure_after_the_first_token_keeps_what_was_computed() -> None:
    fleet = Fleet("prefix_cache", 3)
    prompt = text("aborts", 500)
    url = fleet.route(prompt)
    fleet.monitor.on_new_request(url, "r", fleet.now)
    fleet.monitor.on_request_response(url, "r", fleet.now)
    fleet.monitor.on_request_failed(url, "r", fleet.now + 1)
    assert fleet.held(prompt) == [url]


def test_a_choice_that_is_never_sent_leaves_nothing() -> None:
    fleet = Fleet("prefix_cache", 3)
    prompt = text("forgotten", 500)
    fleet.route(prompt)
    fleet.run(fleet.now + 1.5)
    assert fleet.held(prompt) == []
    assert fleet.blocks() == 0


def test_after_a_failover_only_the_second_endpoint_holds_the_prompt() -> None:
    fleet = Fleet("prefix_cache", 3)
    prompt = text("moves", 500)
    first = fleet.route(prompt)
    fleet.monitor.on_new_request(first, "r", fleet.now)
    everyone = fleet.endpoints
    fleet.endpoints = [e for e in everyone if e.url != first]
    second = fleet.route(prompt)
    fleet.monitor.on_new_request(second, "r", fleet.now)
    fleet.monitor.on_request_response(second, "r", fleet.now)
    fleet.endpoints = everyone
    assert fleet.held(prompt) == [second]
    assert fleet.table.column("in_flight").sum() == 1


def test_the_index_is_bounded_however_many_prompts_come() -> None:
    fleet = Fleet("prefix_cache", 2, kv_tokens=32_000, block_chars=128)
    room = 2 * (32_000 // 32 + 16)  # capacities go in steps of 16 blocks
    for i in range(1500):
        fleet.send(text(i, 320), 0.0, 0.0)
        fleet.run(fleet.now + 0.01)
        assert fleet.blocks() <= room
    assert fleet.blocks() > 0.9 * room
    assert fleet.monitor.in_flight == 0


def test_a_working_set_beyond_all_caches_is_still_spread() -> None:
    # Twice as many prefixes as fit, in turn: LRU finds nothing. Load must then decide.
    fleet, chosen = Fleet("prefix_cache", 4, kv_tokens=10_000), Counter[str]()
    for i in range(600):
        chosen[fleet.send(text(i % 80, 1000), 0.1, 0.4)] += 1
        fleet.run(fleet.now + 0.02)
        # A prompt that is not computed yet, 32 blocks at most, comes on top.
        waiting = fleet.column("in_prefill_requests")
        for endpoint, prompts in zip(fleet.endpoints, waiting, strict=True):
            held, in_use, _ = fleet.table.core.held(endpoint.url)
            assert held <= 320 + 32 * prompts and in_use <= 320
    fleet.run(fleet.now + 10)
    assert all(fleet.table.core.held(e.url)[0] <= 320 for e in fleet.endpoints)
    assert max(chosen.values()) <= 1.5 * 150


@pytest.mark.parametrize(("max_num_seqs", "apart"), [(4, 4), (256, 0)])
def test_a_full_batch_sends_requests_where_there_is_room(max_num_seqs: int, apart: int) -> None:
    fleet, hot = Fleet("expected_latency", 2, max_num_seqs=max_num_seqs), text("hot", 20_000)
    home = fleet.send(hot, 0.1, 5.0)
    fleet.run(6.0)
    for turn in range(8):
        chosen = fleet.send(hot + text(turn, 50), 0.02, 30.0)
        apart -= chosen != home
        fleet.run(fleet.now + 0.3)
    assert apart == 0


def test_a_newcomer_starts_slowly_and_gets_its_share() -> None:
    fleet, turn = Fleet("expected_latency", 4), iter(range(1_000_000))

    def some(count: int) -> Counter[str]:
        chosen = Counter[str]()
        for _ in range(count):
            chosen[fleet.send_in_turn(text(next(turn), 1500), 0.15, 1.0)] += 1
            fleet.run(fleet.now + 0.05)
        return chosen

    some(200)
    new = EndpointInfo(url="http://new")
    fleet.endpoints.append(new)
    # Idle, so it is asked at once, but not flooded: its queue counts twice.
    burst = Counter(fleet.route(text(next(turn), 1500)) for _ in range(10))
    assert burst[new.url] < 10
    assert fleet.column("queue_caution")[-1] == 2.0
    fleet.run(fleet.now + 5)
    assert some(200)[new.url] >= 25
    assert fleet.column("queue_caution")[-1] < 1.2


@pytest.mark.parametrize("strategy", CACHE)
def test_all_load_is_given_back_whatever_became_of_the_requests(strategy: str) -> None:
    fleet, rng = Fleet(strategy, 3), random.Random(2)
    end = {
        "served": fleet.monitor.on_request_complete,
        "error": fleet.monitor.on_request_failed,
    }
    for i in range(300):
        name, fate = str(i), rng.choice(["served", "error", "abort", "timeout", "unsent", "twice"])
        url = fleet.route(text(i % 7, 300))
        fleet.now += 0.01
        if fate == "unsent":
            continue
        fleet.monitor.on_new_request(url, name, fleet.now)
        if fate == "timeout":
            continue
        if fate != "error":
            fleet.monitor.on_request_response(url, name, fleet.now)
        end["served" if fate in ("served", "twice") else "error"](url, name, fleet.now)
        if fate == "twice":
            end["error"](url, name, fleet.now)
        if i == 150:
            # It leaves with requests in flight, which are then reported, and joins again.
            fleet.table.remove(url)
            fleet.monitor.on_request_complete(url, name, fleet.now)
            fleet.monitor.on_request_failed(url, str(i - 1), fleet.now)
        for column in ("in_flight", "queued_tokens", "context_tokens", "kv_tokens"):
            assert min(fleet.column(column)) >= 0
    fleet.run(fleet.now + 700)
    fleet.monitor.get_request_stats(fleet.now)
    columns = ("in_flight", "queued_tokens", "queued_prefill_ms", "context_tokens", "kv_tokens")
    for column in (*columns, "in_prefill_requests", "in_decoding_requests"):
        assert fleet.column(column) == [0.0] * 3, column
    assert all(fleet.table.core.held(e.url)[1] == 0 for e in fleet.endpoints)
