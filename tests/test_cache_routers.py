"""The cache-aware routers: whatever body comes, what explain tells, and what reports teach."""

from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from cache_traffic import Fleet, text
from routecore import (
    ROUTERS,
    EndpointInfo,
    RequestStats,
    RequestStatsMonitor,
    RouteError,
    SingletonABCMeta,
    new_instance,
)
from routecore.endpoints.table import EndpointTable
from test_cache_failures import CACHE
from test_scraper import NEW, engine, scraper

__all__ = ["engine", "scraper"]  # the fixtures


def fresh(strategy: str, **params: Any) -> Any:
    SingletonABCMeta._instances.clear()
    made: Any = ROUTERS[strategy]
    return made(**params)


def fleet_of(n: int) -> list[EndpointInfo]:
    return [EndpointInfo(url=f"http://e{i}") for i in range(n)]


BODIES: list[Any] = [
    {"prompt": ""},
    {"prompt": "lone \ud800 surrogate" * 100},
    {"prompt": "x" * 10_000_000},
    {"prompt": "語" * 100_000},
    {"prompt": ["a", "b"]},
    {"prompt": list(range(10_000))},
    {"prompt": [1, True, 2**70, -5, "x", None, [3]]},
    {"prompt": [[1, 2] * 100, [2**70, -5]]},
    {"prompt": []},
    {"messages": [{"role": "user", "content": "hi there, "}] * 10_000},
    {"messages": [{"content": [{"type": "text", "text": "hi"}, {"image_url": {"url": "x"}}]}]},
    {"messages": "not a list", "tools": 3, "system": None},
    {"input": "embed me"},
    {"query": "rerank", "documents": []},
    {},
    None,
    "text",
    [1, 2],
    b"bytes",
]


@pytest.mark.parametrize("strategy", CACHE)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:30])
def test_any_body_is_routed_with_and_without_our_monitor(strategy: str, body: Any) -> None:
    router = fresh(strategy)
    for _ in range(2):
        assert router.route_request(fleet_of(3), {}, {}, None, body).startswith("http://e")
    fleet = Fleet(strategy, 3)
    for i in range(2):
        stats = fleet.monitor.get_request_stats(fleet.now)
        url = fleet.router.route_request(fleet.endpoints, None, stats, None, body)
        fleet.monitor.on_new_request(url, str(i), fleet.now)
        fleet.monitor.on_request_response(url, str(i), fleet.now)
        fleet.monitor.on_request_complete(url, str(i), fleet.now)


@pytest.mark.parametrize("body", BODIES[:6] + BODIES[7:13], ids=lambda body: repr(body)[:30])
def test_a_prompt_is_known_again_however_it_is_written(body: Any) -> None:
    first, cached = cached_after_a_choice(body, kv_tokens=1e7)
    # What a conversation is made of counts too: its roles, and the names of its parts.
    longer_than_a_block = len(repr(body)) > 60 or bool({"messages", "input"} & body.keys())
    assert (cached.pop(first) > 0) == longer_than_a_block
    assert set(cached.values()) == {0}


def cached_after_a_choice(body: Any, **params: Any) -> tuple[str, dict[str, float]]:
    """Where a prompt went, and what each endpoint is taken to have of it then."""
    fixed = {"min_match_tokens": 0, "load_factor": 1e6, "block_chars": 16, "seed": 3}
    router = fresh("prefix_cache", **fixed, **params)
    first = router.route_request(fleet_of(16), {}, {}, None, body)
    explained = router.explain(fleet_of(16), {}, {}, None, body)
    return first, {row.url: row.terms[0].value for row in explained.candidates}


@pytest.mark.parametrize(("tokens", "known"), [(90_000, True), (110_000, False)])
def test_what_no_cache_can_hold_is_in_none(tokens: int, known: bool) -> None:
    body = {"prompt": "word" * tokens}  # four characters a token, as long as nobody tells better
    first, cached = cached_after_a_choice(body, kv_tokens=100_000)
    assert (cached[first] > 0) == known


class Listed:
    """As production-stack keeps what an engine's `/v1/models` lists."""

    def __init__(self, **fields: Any) -> None:
        self.id, self.extra_fields = "m", fields


@pytest.mark.parametrize(
    ("model_info", "known"),
    [
        ({"m": {"max_model_len": 2_000}}, True),
        ({"m": {"max_model_len": 500}}, False),
        ({"m": Listed(max_model_len=500)}, False),
        ({"m": Listed(max_model_len=500), "other": Listed(max_model_len=2_000)}, True),
        ({"m": Listed(max_model_len="500"), "adapter": Listed()}, True),
        ({"m": {"max_model_len": float("nan")}}, True),
        ({"max_model_len": 500}, False),
        ({}, True),
        (500, True),
    ],
)
@pytest.mark.parametrize("path", ["resident", "plain"])
def test_what_no_model_of_an_endpoint_takes_is_not_in_its_cache(
    model_info: Any, known: bool, path: str
) -> None:
    router = fresh("prefix_cache", seed=3)
    monitor = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
    stats: Any = monitor.get_request_stats(0.0) if path == "resident" else {}
    endpoints = [SimpleNamespace(url=f"http://e{at}", model_info=model_info) for at in range(2)]
    body = {"prompt": list(range(1_000))}
    first = router.route_request(endpoints, {}, stats, None, body)
    explained = router.explain(endpoints, {}, stats, None, body)
    cached = {row.url: row.terms[0].value for row in explained.candidates}
    assert (cached[first] > 0) == known


def test_a_cached_body_counts_as_the_parsed_one() -> None:
    router = fresh("prefix_cache", seed=3)
    raw = b'{"model": "m", "prompt": "' + b"ab" * 500 + b'"}'
    first = router.route_request(fleet_of(9), {}, {}, SimpleNamespace(_body=raw))
    body = {"model": "m", "prompt": "ab" * 500}
    assert router.explain(fleet_of(9), {}, {}, None, body).url == first


@pytest.mark.parametrize("strategy", CACHE)
def test_fixed_seeds_repeat_and_other_hash_seeds_change_no_choice_by_load(strategy: str) -> None:
    def choices(**seeds: int) -> list[str]:
        fleet = Fleet(strategy, 5, **seeds)
        return [fleet.send(text(i % 9, 300), 0.1, 1.0) for i in range(60)]

    assert choices(hash_seed=8) == choices(hash_seed=8)
    assert choices(hash_seed=8) == choices(hash_seed=2**64 - 1)  # only names of blocks differ


@pytest.mark.parametrize("strategy", CACHE)
@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"block_chars": 8}, "block_chars: expected an integer from 16"),
        ({"block_chars": "128"}, "block_chars"),
        ({"block_tokens": 0}, "block_tokens: expected an integer from 1"),
        ({"block_tokens": 70_000}, "block_tokens"),
        ({"kv_tokens": 0}, "kv_tokens: expected tokens from 1"),
        ({"kv_tokens": float("nan")}, "kv_tokens"),
        ({"hash_seed": -1}, "hash_seed: expected None or an integer"),
        ({"seed": 2**64}, "seed: expected None or an integer"),
    ],
)
def test_a_wrong_parameter_is_named(strategy: str, params: Any, names: str) -> None:
    with pytest.raises(RouteError, match=names):
        fresh(strategy, **params)


@pytest.mark.parametrize(
    ("strategy", "params", "names"),
    [
        ("prefix_cache", {"load_factor": 0.5}, "load_factor"),
        ("prefix_cache", {"min_match_share": 2}, "min_match_share"),
        ("expected_latency", {"decode_weight": -1}, "decode_weight"),
        ("expected_latency", {"max_num_seqs": 0}, "max_num_seqs"),
        ("expected_latency", {"max_num_seqs": "64"}, "max_num_seqs"),
        ("cache_aware", {"cache_threshold": 1.5}, "cache_threshold"),
        ("dynamo_cost", {"overlap_credit": float("inf")}, "overlap_credit"),
        ("llm_d", {"kv_weight": -2}, "kv_weight"),
        ("sticky_until_saturated", {"tokens_per_s": 0}, "tokens_per_s"),
    ],
)
def test_a_value_out_of_range_is_named(strategy: str, params: Any, names: str) -> None:
    with pytest.raises(RouteError, match=f"{names}.*expected a number from"):
        fresh(strategy, **params)


@pytest.mark.parametrize("strategy", ["expected_latency", "dynamo_cost", "llm_d"])
def test_explained_terms_add_up_to_the_score(strategy: str) -> None:
    fleet = Fleet(strategy, 4)
    for i in range(200):
        fleet.send(text(i % 11, 700), 0.2, 3.0)
        fleet.run(fleet.now + 0.02)
        body = {"model": "m", "prompt": text(i % 11, 700)}
        stats = fleet.monitor.get_request_stats(fleet.now)
        explained = fleet.router.explain(fleet.endpoints, None, stats, None, body)
        for row in explained.candidates:
            assert row.score == pytest.approx(sum(term.value for term in row.terms), rel=1e-12)
        best = max if strategy == "llm_d" else min
        scores = {row.url: row.score for row in explained.candidates}
        assert scores[explained.url] == pytest.approx(best(scores.values()), abs=1e-8)


@pytest.mark.parametrize("strategy", CACHE)
def test_explain_changes_neither_index_nor_load_nor_the_next_choice(strategy: str) -> None:
    def run(explains: int) -> list[Any]:
        fleet, seen = Fleet(strategy, 4, hash_seed=1), []
        for i in range(80):
            body = {"model": "m", "prompt": text(i % 5, 400)}
            stats = fleet.monitor.get_request_stats(fleet.now)
            for _ in range(explains):
                fleet.router.explain(fleet.endpoints, None, stats, None, body)
            seen.append((fleet.send(text(i % 5, 400), 0.1, 1.0), fleet.blocks()))
            seen.append(fleet.column("in_flight") + fleet.column("queued_tokens"))
            fleet.run(fleet.now + 0.03)
        return seen

    assert run(0) == run(3)


@pytest.mark.parametrize("strategy", CACHE)
def test_an_endpoint_whose_decoding_requests_nobody_knows_is_not_starved(strategy: str) -> None:
    router, endpoints = fresh(strategy, seed=1), fleet_of(3)
    stats = {e.url: RequestStats(in_prefill_requests=1, in_decoding_requests=2) for e in endpoints}
    stats["http://e1"] = RequestStats(in_prefill_requests=1, in_decoding_requests=float("nan"))
    bodies = [{"prompt": text(i, 100)} for i in range(60)]
    chosen = [router.route_request(endpoints, {}, stats, None, body) for body in bodies]
    assert chosen.count("http://e1") >= 8


def served(fleet: Fleet, prompt: str, found: int | None, tokens: int | None = None) -> None:
    """A request that finds so many tokens in the cache of its endpoint."""
    url = fleet.route(prompt)
    fleet.requests += 1
    name = f"s{fleet.requests}"
    fleet.monitor.on_new_request(url, name, fleet.now)
    fleet.monitor.on_request_response(url, name, fleet.now + 0.1)
    fleet.monitor.on_usage(url, name, tokens, found, 50)
    fleet.monitor.on_request_complete(url, name, fleet.now + 0.2)
    fleet.now += 0.3


def test_predictions_are_counted_against_what_engines_found() -> None:
    fleet, prompt = Fleet("prefix_cache", 1), text("warm", 1024)
    served(fleet, prompt, 0)  # nothing promised
    assert fleet.monitor.predictions.requests == 1
    assert fleet.monitor.predictions.predicted_tokens == 0
    served(fleet, prompt, 1024)
    assert fleet.monitor.predictions.over_predicted == 0
    served(fleet, prompt, 100)
    served(fleet, prompt, None)  # the engine does not tell: not counted
    seen = fleet.monitor.predictions
    assert (seen.requests, seen.over_predicted, seen.actual_tokens) == (3, 1, 1124)
    assert seen.predicted_tokens == pytest.approx(2 * 1024, rel=0.05)


def test_a_cache_that_lasts_for_less_than_its_size_is_taken_to_be_smaller() -> None:
    fleet, prompt = Fleet("prefix_cache", 1, kv_tokens=32_000), text("short", 1024)
    url = fleet.endpoints[0].url
    served(fleet, prompt, 0)
    before = fleet.table.core.held(url)[2]
    for _ in range(30):
        served(fleet, prompt, 0)
    smaller = fleet.table.core.held(url)[2]
    assert smaller < 0.5 * before
    for _ in range(2000):
        served(fleet, prompt, 1024)
    assert smaller < fleet.table.core.held(url)[2] <= before


def test_the_length_of_a_token_is_learned_from_what_engines_count() -> None:
    fleet = Fleet("expected_latency", 1)
    for i in range(200):
        served(fleet, text(i, 1000), 0, tokens=2000)  # two bytes a token, not four
    url = fleet.route(text("new", 1000))
    fleet.monitor.get_request_stats(fleet.now)
    assert url
    assert fleet.column("queued_tokens")[0] == pytest.approx(2000, rel=0.05)


def test_the_size_of_a_kv_cache_is_scraped_and_bounds_the_index(engine: Any, scraper: Any) -> None:
    info = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="500",engine="0"} 1.0\n'
    server = engine(NEW + info)
    fleet = Fleet("prefix_cache", 1)
    fleet.endpoints = [EndpointInfo(url=server.url)]
    one = scraper([server.url], table=fleet.table)
    one.scrape_once()
    assert fleet.column("kv_capacity_tokens") == [8000.0]
    for i in range(50):
        served(fleet, text(i, 1000), 0)
    assert fleet.table.core.held(server.url)[2] == -(-8000 // 32 // 16) * 16
    assert fleet.blocks() <= 256
    column = array("d", [float("nan")])
    with pytest.raises(RouteError, match="kv_capacity_tokens"):
        fleet.table.load_columns({"kv_capacity_tokens": column}, urls=[server.url])
