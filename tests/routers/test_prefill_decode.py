"""Pairs of endpoints: one that computes the prompt, one that writes the answer."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import PrefillDecodeRouter, RequestStatsMonitor, RouteError

PREFILL = [SimpleNamespace(url=f"http://p{n}", model_label="prefill") for n in range(3)]
DECODE = [SimpleNamespace(url=f"http://d{n}", model_label="decode") for n in range(3)]


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": text * 50, **more}


def test_a_prompt_has_one_prefill_home_and_its_answers_spread() -> None:
    router, monitor = PrefillDecodeRouter(seed=1), RequestStatsMonitor(60.0)
    homes, writers = [], []
    for n in range(3):
        stats = monitor.get_request_stats(time.time())
        homes.append(router.prefill(PREFILL, {}, stats, None, body("same text ")))
        monitor.on_new_request(homes[-1], f"p{n}", time.time())
        monitor.on_request_complete(homes[-1], f"p{n}", time.time())
        writers.append(router.decode(DECODE, {}, stats, None, body("same text ")))
        monitor.on_new_request(writers[-1], f"d{n}", time.time())
    assert len(set(homes)) == 1
    assert sorted(writers) == [endpoint.url for endpoint in DECODE]


def test_the_half_is_chosen_by_max_tokens_and_labels() -> None:
    router = PrefillDecodeRouter(seed=1)
    both = [*PREFILL, *DECODE]
    assert router.route_request(both, {}, {}, None, body("a", max_tokens=1)).startswith("http://p")
    assert router.route_request(both, {}, {}, None, body("a", max_tokens=2)).startswith("http://d")
    assert router.route_request(both, {}, {}, None).startswith("http://d")


def test_a_seed_makes_both_halves_repeatable() -> None:
    def choices(seed: int) -> list[str]:
        router = type.__call__(PrefillDecodeRouter, seed=seed, prefill="random", decode="random")
        both = [*PREFILL, *DECODE]
        return [router.route_request(both, {}, {}, None, {"max_tokens": n % 2}) for n in range(30)]

    assert choices(1) == choices(1) != choices(2)


def test_a_missing_half_and_an_unknown_strategy_are_named() -> None:
    with pytest.raises(RouteError, match="no endpoint has a model_label of prefill"):
        PrefillDecodeRouter(seed=1).route_request(DECODE, {}, {}, None, body("a", max_tokens=1))
    with pytest.raises(RouteError, match="decode: unknown strategy 'fastest'; valid: round_robin"):
        type.__call__(PrefillDecodeRouter, decode="fastest")
