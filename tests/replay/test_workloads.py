"""Generated workloads: what kind of traffic each is, and that a seed says it all."""

import numpy as np
import pytest
from routecore import RouteError
from routecore.replay import WORKLOADS, generate, run


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_seed_says_it_all(kind: str) -> None:
    def once(seed: int) -> np.ndarray:
        return run(generate(kind, requests=300, seed=seed), endpoints=2).per_request.end_ms

    np.testing.assert_array_equal(once(1), once(1))
    assert (once(1) != once(2)).any()


def test_kinds_differ_as_their_names_say() -> None:
    found = {kind: run(generate(kind, requests=1500)).per_request for kind in WORKLOADS}
    turns = {k: 1500 / len(np.unique(each.session)) for k, each in found.items()}
    prompts = {k: each.input_tokens.mean() for k, each in found.items()}
    assert turns["agentic"] > 10 > turns["chat"] > 3 > turns["documents"] > 1.3
    assert prompts["agentic"] > prompts["documents"] > 2 * prompts["chat"]


def test_mixed_prompts_and_short_answers_are_what_they_say() -> None:
    mixed = run(generate("mixed", requests=1500)).per_request.input_tokens
    assert np.quantile(mixed, 0.3) < 100 < 10_000 < np.quantile(mixed, 0.85)
    short = run(generate("short", requests=1500)).per_request
    assert short.output_tokens.max() <= 20 < 1000 < np.median(short.input_tokens)


def test_a_burst_brings_half_a_minute_within_five_seconds() -> None:
    each = run(generate("burst", requests=1500, rate=10)).per_request
    starts = np.sort(each.arrival_ms[np.unique(each.session, return_index=True)[1]])
    groups = np.split(starts, np.flatnonzero(np.diff(starts) > 10e3) + 1)
    assert len(groups) >= 4
    assert all(group[-1] - group[0] <= 5e3 for group in groups)


def test_turns_reuse_prompt_and_answer_of_the_turn_before() -> None:
    trace = generate("agentic", requests=200)
    each = run(trace, endpoints=1, kv_blocks=10**6).per_request
    order = np.lexsort((each.arrival_ms, each.session))
    before, now = order[:-1], order[1:]
    same = each.session[before] == each.session[now]
    context = each.input_tokens[before] + each.output_tokens[before] - 1
    np.testing.assert_array_equal(each.cached_tokens[now][same], (context // 64 * 64)[same])


def test_documents_are_shared_by_popularity() -> None:
    alone = run(generate("documents", requests=1000), endpoints=1, kv_blocks=10**6)
    assert 0.6 < alone.token_hit_rate < 0.95


def test_bursts_are_as_asked() -> None:
    def variation(burstiness: float) -> float:
        trace = generate("documents", requests=4000, burstiness=burstiness)
        each = run(trace).per_request
        first = np.unique(each.session, return_index=True)[1]
        gaps = np.diff(np.sort(each.arrival_ms[first]))
        return float(gaps.std() / gaps.mean())

    assert variation(1.0) == pytest.approx(1, abs=0.1)
    assert variation(4.0) == pytest.approx(4, rel=0.25)


def test_numbers_out_of_range_are_named() -> None:
    for settings, text in [
        ({"kind": "video"}, "workload: unknown 'video'; valid: chat, agentic, documents"),
        ({"requests": 0}, "requests: expected from 1"),
        ({"rate": float("nan")}, "rate: expected a number from 1e-6"),
    ]:
        with pytest.raises(RouteError, match=text):
            generate(**settings)  # type: ignore[arg-type]
