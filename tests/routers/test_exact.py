"""Endpoints with KV events and endpoints without, side by side in one fleet."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from kv_messages import cleared, message, removed, stored
from routecore import ROUTERS, EndpointInfo, PrefixCacheRouter, RequestStatsMonitor, RouteError
from routecore.endpoints.table import EndpointTable
from routecore.kv_events import KVIndex
from routecore.routers.cache_router import CacheRouter

BLOCK = 16
EXACT, LEARNED = "http://exact", "http://learned"
CACHE_WORDS = [word for word, kind in ROUTERS.items() if issubclass(kind, CacheRouter)]


def tokens(*blocks: int) -> list[int]:
    """Ids of blocks named by a number."""
    return [block * BLOCK + i for block in blocks for i in range(BLOCK)]


def ask(*blocks: int, **more: Any) -> dict[str, Any]:
    """A body with these blocks for a prompt; one token more, since the last never counts."""
    return {"prompt": [*tokens(*blocks), 1 << 20], **more}


class Fleet:
    """A router over both kinds of endpoints, its monitor, and what the exact ones tell."""

    def __init__(self, word: str = "prefix_cache", **options: Any) -> None:
        self.index = KVIndex(seed=7)
        self.monitor = RequestStatsMonitor(60.0, table=EndpointTable())
        if word == "prefix_cache":
            options = {"min_match_tokens": 0.0, **options}
        kind: Any = ROUTERS[word]
        self.router: Any = kind(seed=1, kv_index=self.index, block_tokens=BLOCK, **options)
        self.endpoints = [EndpointInfo(url=EXACT), EndpointInfo(url=LEARNED)]
        self.seq: dict[str, int] = {}
        self.requests = 0
        self.tell(cleared())

    def tell(self, *events: Any, url: str = EXACT, skip: int = 0, can_replay: bool = False) -> None:
        seq = self.seq.get(url, 0) + skip
        self.seq[url] = seq + 1
        self.index.core.live(url, 0, [(seq, message(*events))], can_replay)

    def send(self, body: dict[str, Any], *urls: str) -> tuple[str, str]:
        """Route among these endpoints, or all; the choice and the request's id."""
        chosen = [e for e in self.endpoints if e.url in urls] if urls else self.endpoints
        stats = self.monitor.get_request_stats(float(self.requests))
        url = self.router.route_request(chosen, {}, stats, None, body)
        self.requests += 1
        name = f"r{self.requests}"
        self.monitor.on_new_request(url, name, float(self.requests))
        return url, name

    def serve(self, body: dict[str, Any], *urls: str) -> str:
        """Route, answer, end."""
        url, name = self.send(body, *urls)
        self.monitor.on_request_response(url, name, float(self.requests))
        self.monitor.on_request_complete(url, name, float(self.requests))
        return url

    def cached(self, body: dict[str, Any]) -> dict[str, float]:
        """Tokens that each endpoint is taken to have, as `explain` shows them."""
        stats = self.monitor.get_request_stats(float(self.requests))
        explained = self.router.explain(self.endpoints, {}, stats, None, body)
        terms = {c.url: {t.name: t.value for t in c.terms} for c in explained.candidates}
        return {url: term["cached"] for url, term in terms.items()}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.mark.parametrize("word", CACHE_WORDS)
def test_a_stored_prompt_is_a_hit_where_it_was_never_sent(word: str) -> None:
    fleet = Fleet(word)
    blocks = list(range(1, 65))
    fleet.tell(stored(blocks, None, tokens(*blocks), BLOCK))
    for _ in range(2):  # from the third on LMetric takes the prompt for a hot spot
        assert fleet.serve(ask(*blocks)) == EXACT
    fleet.tell(removed(blocks))
    served = {fleet.serve(ask(*blocks)) for _ in range(8)}
    assert LEARNED in served  # a draw among equals, then what was sent there


def test_a_removed_block_is_no_hit_although_it_was_sent_there(fleet: Fleet) -> None:
    body = ask(1, 2, 3, 4)
    fleet.serve(body, EXACT)
    fleet.serve(body, LEARNED)
    assert fleet.cached(body) == {EXACT: 0, LEARNED: 64}  # nothing was stored there
    fleet.tell(stored([1, 2, 3, 4], None, tokens(1, 2, 3, 4), BLOCK))
    assert fleet.cached(body) == {EXACT: 64, LEARNED: 64}
    fleet.tell(removed([3]))
    assert fleet.cached(body) == {EXACT: 32, LEARNED: 64}
    fleet.tell(cleared())
    assert fleet.cached(body) == {EXACT: 0, LEARNED: 64}


def test_burst_siblings_follow_a_request_in_flight_until_it_fails(fleet: Fleet) -> None:
    body = ask(1, 2, 3, 4)
    url, first = fleet.send(body, EXACT)
    assert fleet.cached(ask(1, 2, 9)) == {EXACT: 32, LEARNED: 0}  # before any event of it
    _, second = fleet.send(body, EXACT)
    fleet.monitor.on_request_failed(url, first, 9.0)
    assert fleet.cached(body)[EXACT] == 64
    fleet.monitor.on_request_failed(url, second, 9.0)
    assert fleet.cached(body) == {EXACT: 0, LEARNED: 0}


def test_a_finished_request_counts_no_more_than_the_engine_tells(fleet: Fleet) -> None:
    url, name = fleet.send(ask(1, 2, 3, 4), EXACT)
    fleet.tell(stored([1, 2], None, tokens(1, 2), BLOCK))
    assert fleet.cached(ask(1, 2, 3, 4))[EXACT] == 64
    fleet.monitor.on_request_response(url, name, 5.0)
    fleet.monitor.on_request_complete(url, name, 6.0)
    assert fleet.cached(ask(1, 2, 3, 4))[EXACT] == 32


def test_a_partial_view_falls_back_to_what_was_sent_there(fleet: Fleet) -> None:
    late = "http://late"
    fleet.endpoints.append(EndpointInfo(url=late))
    fleet.tell(stored([1], None, tokens(1), BLOCK), url=late, skip=5)  # joined in the middle
    assert not fleet.index.is_exact(late)
    assert fleet.cached(ask(1, 2, 3))[late] == 16  # what it reported is true nevertheless
    fleet.serve(ask(1, 2, 3), late)
    assert fleet.cached(ask(1, 2, 3))[late] == 48
    assert fleet.cached(ask(7, 8))[late] == 0


def test_while_a_loss_is_made_good_history_counts(fleet: Fleet) -> None:
    fleet.tell(stored([1, 2], None, tokens(1, 2), BLOCK))
    fleet.serve(ask(5, 6), EXACT)
    assert (fleet.cached(ask(1, 2))[EXACT], fleet.cached(ask(5, 6))[EXACT]) == (32, 0)
    fleet.tell(removed([2]), skip=3, can_replay=True)  # a replay is asked for
    assert (fleet.cached(ask(1, 2))[EXACT], fleet.cached(ask(5, 6))[EXACT]) == (0, 32)


def test_adapters_by_model_name_and_salts_share_nothing(fleet: Fleet) -> None:
    text = tokens(1, 2)
    fleet.tell(
        stored([1, 2], None, text, BLOCK),
        stored([3, 4], None, [t + 5000 for t in text], BLOCK, lora_name="poet"),
        stored([5, 6], None, [t + 9000 for t in text], BLOCK, extra_keys=[["tenant"], None]),
    )
    last = 1 << 20
    base, poet, salted = ({"prompt": [*(t + d for t in text), last]} for d in (0, 5000, 9000))
    for body, right, wrong in (
        (base, {"model": "llama"}, {"model": "poet"}),
        (base, {}, {"cache_salt": "tenant"}),
        (poet, {"model": "poet"}, {"model": "llama"}),
        (poet, {"model": "poet"}, {}),
        (salted, {"cache_salt": "tenant"}, {}),
        (salted, {"cache_salt": "tenant", "model": "llama"}, {"cache_salt": "other"}),
    ):
        assert fleet.cached({**body, **right})[EXACT] == 32
        assert fleet.cached({**body, **wrong})[EXACT] == 0


def test_slower_tiers_count_for_less(fleet: Fleet) -> None:
    fleet.tell(
        stored([1, 2], None, tokens(1, 2), BLOCK, medium="GPU"),
        stored([3, 4], 2, tokens(3, 4), BLOCK, medium="CPU"),
        stored([5, 6], 4, tokens(5, 6), BLOCK, medium="DISK"),
    )
    assert fleet.index.matched(ask(1, 2, 3, 4, 5, 6)["prompt"], [EXACT]) == [(32, 64, 96)]
    assert fleet.cached(ask(1, 2, 3, 4, 5, 6))[EXACT] == 32 + 0.75 * 32 + 0.25 * 32


def test_events_of_endpoints_that_are_no_candidates_disturb_nobody(fleet: Fleet) -> None:
    for url in ("http://a", "http://zzz"):
        fleet.tell(stored([1], None, tokens(1), BLOCK), url=url)
    assert fleet.cached(ask(1, 2)) == {EXACT: 0, LEARNED: 0}
    fleet.endpoints.append(EndpointInfo(url="http://zzz"))
    assert fleet.cached(ask(1, 2))["http://zzz"] == 16
    fleet.index.remove("http://zzz")  # from now on one without events
    fleet.serve(ask(1, 2), "http://zzz")
    assert fleet.cached(ask(1, 2)) == {EXACT: 0, LEARNED: 0, "http://zzz": 32}


def test_engines_with_other_block_sizes_are_each_asked_in_their_own(fleet: Fleet) -> None:
    fleet.endpoints.append(EndpointInfo(url="http://big"))
    fleet.tell(stored([1, 2, 3], None, tokens(1, 2, 3), BLOCK))
    fleet.tell(stored([1], None, tokens(1, 2), 32), url="http://big")
    assert fleet.cached(ask(1, 2, 3)) == {EXACT: 48, LEARNED: 0, "http://big": 32}


def test_a_batch_goes_by_events_too(fleet: Fleet) -> None:
    fleet.tell(stored([1, 2], None, tokens(1, 2), BLOCK))
    fleet.serve(ask(5, 6), LEARNED)
    stats = fleet.monitor.get_request_stats(5.0)
    keys = [ask(1, 2), ask(5, 6), None, {"no": "prompt"}]
    chosen = fleet.router.route_batch(fleet.endpoints, {}, stats, keys)
    assert chosen[:2].tolist() == [0, 1]


def raises(_: Any) -> Any:
    raise KeyError("chat_template")


@pytest.mark.parametrize(
    "prompt_tokens",
    [
        raises,
        lambda _: "tokens",
        lambda _: 7,
        lambda _: object(),
        lambda _: [1, -1],
        lambda _: [2**32],
        lambda _: [1.5],
        lambda _: [[1]],
        lambda _: {"ids": [1]},
        lambda _: np.array([0.5, 1.0]),
        lambda _: np.array([-1, 5]),
    ],
)
def test_a_prompt_without_good_ids_goes_by_its_text(
    prompt_tokens: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(prompt_tokens=prompt_tokens)
    body = {"prompt": "a long text " * 100}
    with caplog.at_level(logging.WARNING, "routecore"):
        fleet.serve(body, LEARNED)
        assert fleet.cached(body)[LEARNED] > 100
        stats = fleet.monitor.get_request_stats(5.0)
        assert fleet.router.route_batch(fleet.endpoints, {}, stats, [body]).tolist() == [1]
    assert fleet.router.prompts_without_ids == 2  # explanations count nothing
    assert len(caplog.records) == 1
    logged = caplog.text
    assert "chat_template" in logged or "expected integers of 0 to 2**32 - 1" in logged


def test_ids_that_a_client_made_up_fail_no_request(fleet: Fleet) -> None:
    for prompt in ([1, -5], [1, "x"], [1, 2**40]):
        assert fleet.serve({"prompt": prompt}) in (EXACT, LEARNED)
    assert fleet.router.prompts_without_ids == 3


def test_an_interrupt_is_no_failed_tokenizer() -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fleet(prompt_tokens=interrupted).serve(ask(1))


@pytest.mark.parametrize(
    ("option", "value"), [("kv_index", "tcp://a:5557"), ("prompt_tokens", "llama")]
)
def test_what_cannot_be_asked_is_named_at_once(option: str, value: Any) -> None:
    with pytest.raises(RouteError, match=option):
        PrefixCacheRouter(**{option: value})


def test_ids_from_anywhere_are_the_same_prompt() -> None:
    forms = [list, tuple, np.uint32, np.int32, np.int64, np.uint64]
    current: list[Any] = [None]

    def convert(body: Any) -> Any:
        form = current[0]
        return form(body["prompt"]) if form in (list, tuple) else np.array(body["prompt"], form)

    fleet = Fleet(prompt_tokens=convert)
    fleet.tell(stored([1, 2], None, tokens(1, 2), BLOCK))
    for form in forms:
        current[0] = form
        assert fleet.cached(ask(1, 2, 3))[EXACT] == 32


def test_eight_threads_route_while_events_are_applied(fleet: Fleet) -> None:
    fleet.tell(stored([1, 2], None, tokens(1, 2), BLOCK))
    stats = fleet.monitor.get_request_stats(0.0)
    running = True

    def churn() -> None:
        at = 1000
        while running:
            parent = 2
            for block in range(at, at + 4):
                fleet.tell(stored([block], parent, tokens(block % 100), BLOCK))
                parent = block
            fleet.tell(removed(list(range(at, at + 4))))
            at += 4

    def route(thread: int) -> int:
        for i in range(300):
            body = ask(1, 2, (1000 + i) % 100, thread)
            explained = fleet.router.explain(fleet.endpoints, {}, stats, None, body)
            cached = next(t.value for t in explained.candidates[0].terms if t.name == "cached")
            assert cached >= 32  # what is never removed is never missed
            url = fleet.router.route_request(fleet.endpoints, {}, stats, None, body)
            name = f"{thread}-{i}"
            fleet.monitor.on_new_request(url, name, 1.0)
            if i % 2:
                fleet.monitor.on_request_failed(url, name, 1.0, "client")
            else:
                fleet.monitor.on_request_response(url, name, 1.0)
                fleet.monitor.on_request_complete(url, name, 1.0)
        return thread

    with ThreadPoolExecutor(9) as pool:
        churning = pool.submit(churn)
        try:
            assert sorted(pool.map(route, range(8))) == list(range(8))
        finally:
            running = False
        churning.result()
    assert fleet.monitor.in_flight == 0
    assert fleet.index.blocks == 2
    assert fleet.cached(ask(1, 2, 3))[EXACT] == 32
