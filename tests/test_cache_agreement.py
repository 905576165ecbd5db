"""The prefix index and every strategy over it against their naive twins, over lives of requests."""

import math
import random
from array import array
from typing import Any

import pytest
import reference_cost as twin
from hypothesis import given
from hypothesis import strategies as st
from reference_cache import NaiveFleet, Prompt, prompt_of, question
from routecore import ROUTERS, EndpointInfo, EngineStats, RequestStatsMonitor
from routecore.endpoints.table import EndpointTable
from singletons import forget_singletons

URLS = [f"http://engine-{i}:8000" for i in range(4)]
BLOCK, KV, LEASE = 16, 90, 20.0
KNOBS: dict[str, Any] = {
    "prefix_cache": {
        "min_match_tokens": st.sampled_from([0, 4, 12]),
        "min_match_share": st.sampled_from([0.0, 0.5]),
        "load_factor": st.sampled_from([1.0, 1.25, 3.0]),
    },
    "cache_aware": {
        "cache_threshold": st.sampled_from([0.0, 0.3, 0.7]),
        "balance_abs": st.sampled_from([0, 1, 64]),
        "balance_rel": st.sampled_from([1.0, 1.5]),
    },
    "dynamo_cost": {
        "prefill_weight": st.sampled_from([0.0, 1.0, 4.0]),
        "overlap_credit": st.sampled_from([0.0, 1.0, 2.0]),
    },
    "llm_d": {
        "prefix_weight": st.sampled_from([0.0, 3.0]),
        "queue_weight": st.sampled_from([0.0, 2.0]),
        "kv_weight": st.sampled_from([0.0, 2.0]),
    },
    "sticky_until_saturated": {
        "threshold": st.sampled_from([0.0, 0.5, 0.8]),
        "penalty_s": st.sampled_from([0.0, 0.01, 18.0]),
        "tokens_per_s": st.sampled_from([100.0, 15_928.0]),
    },
    "expected_latency": {
        "decode_weight": st.sampled_from([0.0, 0.05, 1.0]),
        "max_num_seqs": st.sampled_from([1, 4, 256]),
    },
    "lmetric": {},
}

# Blocks of three letters, so that most prompts share something; a tail that is no full block.
TEXTS = st.builds(
    lambda blocks, tail: "".join(b * BLOCK for b in blocks) + tail,
    st.lists(st.sampled_from("aab"), max_size=12),
    st.sampled_from(["", "?", "é" * 5, "\ud800"]),
)
PROMPTS = st.one_of(
    TEXTS.map(lambda text: {"prompt": text}),
    TEXTS.map(lambda text: {"messages": [{"role": "user", "content": text}]}),
    TEXTS.map(lambda t: {"input": [t, t], "system": "be kind", "tools": [{"name": "f"}]}),
    st.integers(0, 40).map(lambda n: {"prompt": [7] * n}),
    st.just({}),
)
BODIES = st.builds(
    lambda body, apart: {**body, **apart},
    PROMPTS,
    st.sampled_from([{"model": "m"}] * 4 + [{"model": "n"}, {"model": "m", "cache_salt": "s"}]),
)
SOME = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("route"), BODIES, st.integers(1, 15), st.booleans()),
    st.tuples(st.just("route"), BODIES, st.just(15), st.just(True)),
    st.tuples(st.just("route"), BODIES, st.just(15), st.just(True)),
    st.tuples(st.just("first token"), SOME),
    st.tuples(st.just("complete"), SOME),
    st.tuples(st.just("failed"), SOME),
    st.tuples(st.just("moved"), SOME, st.integers(0, 3)),
    st.tuples(st.just("usage"), SOME, st.integers(0, 200), st.none() | st.integers(0, 90)),
    st.tuples(st.just("wait"), st.sampled_from([0.4, 0.7, 9.0, 15.0])),
    st.tuples(st.just("remove"), st.integers(0, 3)),
    st.tuples(st.just("capacity"), st.integers(0, 3), st.sampled_from([30.0, 70.0, 200.0])),
)
NUMBERS = st.sampled_from([0, 1, 5, None, math.nan])
ENGINES = st.none() | st.dictionaries(
    st.sampled_from(URLS),
    st.builds(
        EngineStats,
        num_queuing_requests=NUMBERS,
        gpu_cache_usage_perc=st.sampled_from([0.0, 0.4, 1.0, 1.5, None, math.nan]),
    ),
)


class Life:
    """A fleet of ours and its naive twin, given the same."""

    def __init__(
        self, name: str, knobs: dict[str, Any], engines: Any, seed: int, kv: float = KV
    ) -> None:
        forget_singletons()
        made: Any = ROUTERS[name]
        self.router = made(
            block_chars=BLOCK, block_tokens=4, kv_tokens=kv, hash_seed=seed, seed=seed, **knobs
        )
        self.name, self.knobs, self.engines, self.kv = name, knobs, engines, kv
        self.table = EndpointTable()
        self.monitor = RequestStatsMonitor(60.0, lease_timeout=LEASE, table=self.table)
        self.naive, self.lmetric = NaiveFleet(kv, LEASE), twin.LMetric()
        self.copies, self.explained = twin.Copies(), 0
        self.sent: list[tuple[str, str]] = []
        self.now = 1.0
        # A host that reports first tokens: without one the core goes by when they are due.
        self.monitor.on_new_request("http://elsewhere", "warm", self.now)
        self.monitor.on_request_response("http://elsewhere", "warm", self.now)
        self.monitor.on_request_complete("http://elsewhere", "warm", self.now)

    def run(self, steps: list[Any]) -> None:
        """Every step, and after each a look at what is held."""
        for count, (kind, *given_) in enumerate(steps):
            self.now += 0.01
            if kind == "route":
                if not self.route(*given_, name=f"r{count}"):
                    return
            elif kind == "wait":
                self.now += given_[0]
            elif kind == "remove":
                url = URLS[given_[0]]
                self.table.remove(url)
                self.naive.remove(url)
            elif kind == "capacity":
                self.report_size(URLS[given_[0]], given_[1])
            elif self.sent:
                self.event(kind, given_[0] % len(self.sent), *given_[1:])
            self.check()

    def report_size(self, url: str, tokens: float) -> None:
        """The engine tells the size of its cache."""
        self.table.add(url)
        self.table.load_columns({"kv_capacity_tokens": array("d", [tokens])}, urls=[url])
        self.naive.reported[url] = tokens

    def event(self, kind: str, at: int, *more: Any) -> None:
        """Something happens to a request that was sent."""
        url, name = self.sent[at]
        if kind == "first token":
            self.monitor.on_request_response(url, name, self.now)
            self.naive.first_token(url, name, self.now)
        elif kind == "usage":
            self.monitor.on_usage(url, name, more[0], more[1], 20)
            self.naive.usage(url, name, more[0], more[1])
        elif kind == "moved":
            self.sent[at] = (URLS[more[0]], name)
            self.monitor.on_new_request(URLS[more[0]], name, self.now)
            self.naive.sent(URLS[more[0]], name, self.now)
        else:
            done = kind == "complete"
            end = self.monitor.on_request_complete if done else self.monitor.on_request_failed
            end(url, name, self.now)
            self.naive.end(url, name, self.now, done)
            del self.sent[at]

    def route(self, body: Any, mask: int, reported: bool, name: str) -> bool:
        """One decision; False where a draw leaves the twin unable to follow."""
        urls = [url for i, url in enumerate(URLS) if mask >> i & 1]
        endpoints = [EndpointInfo(url=url) for url in urls]
        stats = self.monitor.get_request_stats(self.now)
        self.naive.advance(self.now)
        prompt = prompt_of(body, BLOCK, 4)
        explained = self.router.explain(endpoints, self.engines, stats, None, body)
        costs, may_win = self.costs(urls, prompt)
        prefill = self.prefill_of()
        chosen = self.router.route_request(endpoints, self.engines, stats, None, body)
        assert explained.url == chosen
        copies = [
            r.url
            for r in explained.candidates
            if any(t.name == "copy" and t.value for t in r.terms)
        ]
        assert set(copies) <= {chosen}
        self.explained += len(copies)
        for row in explained.candidates:
            assert self.agrees(row, costs[row.url])
        if may_win is None:
            return False
        assert chosen in may_win
        self.naive.chosen(chosen, prompt, prefill(chosen))
        if reported:
            self.sent.append((chosen, name))
            self.monitor.on_new_request(chosen, name, self.now)
            self.naive.sent(chosen, name, self.now)
        return True

    def costs(
        self, urls: list[str], prompt: Prompt | None
    ) -> tuple[dict[str, float], list[str] | None]:
        """What the twin makes of the candidates, and which of them may be chosen."""
        asked = question(
            self.naive,
            urls,
            prompt,
            engine=self.table.core.engine,
            slower={url: self.slower(url) for url in urls},
            kv_tokens=self.kv,
            stats=self.engines or {},
        )
        if self.name == "lmetric":
            return self.lmetric.costs(asked), self.lmetric.may_win(asked)
        costs = twin.COSTS[self.name](asked, **self.knobs)
        if self.name == "expected_latency":
            return costs, self.copies.may_win(asked, costs, **self.knobs)
        return costs, twin.least(costs)

    def slower(self, url: str) -> tuple[float, float, float, float]:
        """How many times slower it was found to be in prefill and decode; what was sent to it."""
        row = self.table.add(url)
        names = ("prefill_slowness", "step_slowness", "prefill_sent", "requests_sent")
        prefill, step, sent, requests = (float(self.table.column(name)[row]) for name in names)
        return prefill, step, sent, requests

    def prefill_of(self) -> Any:
        """What a prefill takes, as learned up to now."""
        engine, slower = self.table.core.engine, {url: self.slower(url)[0] for url in URLS}
        return lambda url: lambda tokens, new: twin.prefill_ms(engine, slower[url], tokens, new)

    def agrees(self, row: Any, cost: float) -> bool:
        """What is explained is the twin's cost, but for those that lose to all within a bound."""
        if self.name in ("prefix_cache", "cache_aware"):
            return True
        score = -row.score if self.name == "llm_d" else row.score
        parts = sum(term.value for term in row.terms)
        if self.name != "lmetric":
            assert row.score == pytest.approx(parts)
        score -= sum(term.value for term in row.terms if term.name == "copy")
        return bool(score == pytest.approx(cost, rel=1e-6, abs=1e-6))

    def check(self) -> None:
        """Blocks, loads and predictions are the twin's after every step."""
        self.monitor.get_request_stats(self.now)
        self.naive.advance(self.now)
        seen = self.monitor.predictions
        counted = [seen.requests, seen.over_predicted, seen.predicted_tokens, seen.actual_tokens]
        assert counted == self.naive.predictions
        for url in URLS:
            held, pinned, _ = self.table.core.held(url)
            assert held == len(self.naive.index.blocks(url))
            assert pinned == self.naive.index.pinned(url)
            if url in self.table.urls:
                at, row = self.table.urls.index(url), self.naive.row(url, None)
                assert self.table.column("in_flight")[at] == row.in_flight
                assert self.table.column("queued_tokens")[at] == row.queued
                assert self.table.column("context_tokens")[at] == row.context
                assert self.table.column("kv_tokens")[at] == pytest.approx(row.kv)


@pytest.mark.parametrize("name", sorted(KNOBS))
@given(data=st.data())
def test_choices_loads_and_blocks_are_the_twins(name: str, data: Any) -> None:
    knobs = data.draw(st.fixed_dictionaries({}, optional=KNOBS[name]))
    engines = data.draw(ENGINES) if name == "llm_d" else None
    life = Life(name, knobs, engines, data.draw(st.integers(0, 99)))
    life.run(data.draw(st.lists(STEPS, min_size=1, max_size=25)))


def test_copies_of_a_hot_prefix_are_the_twins() -> None:
    """Lives as above are too short for one to pay: many alike requests, of which few end."""
    made = 0
    for seed in range(30):
        rng = random.Random(seed)
        knobs = {"decode_weight": rng.choice([0.05, 0.5])}
        life = Life("expected_latency", knobs, None, seed, kv=100_000)
        life.run([hot(rng) if rng.random() < 0.6 else ended(rng) for _ in range(80)])
        made += life.copies.made
        assert life.explained == life.copies.made
    assert made >= 10


def hot(rng: random.Random) -> tuple[Any, ...]:
    """A request behind the hot prefix, or behind none that is known."""
    prefix = "ab" * 2000 if rng.random() < 0.8 else f"{rng.random()}" * 100
    return "route", {"prompt": prefix + f"{rng.random()}" * 5}, 15, True


def ended(rng: random.Random) -> tuple[Any, ...]:
    """What becomes of one of those in flight."""
    return rng.choice(["first token"] * 4 + ["complete"]), rng.randrange(10)
