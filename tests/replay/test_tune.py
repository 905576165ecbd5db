"""The search of parameters: what it may set, that it keeps its halves apart, what it claims."""

import inspect
import json
import sys
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from routecore import ROUTERS, RouteError
from routecore.cli import main
from routecore.replay import Trace, generate, run
from routecore.replay.tune import OBJECTIVES, Figures, figures, lines, nested, searched, tune
from routecore.routers import UNITS
from routecore.routers.ranges import RANGES, Range


def documents(requests: int = 600) -> Trace:
    return generate("documents", requests=requests, rate=30, seed=1)


def test_every_parameter_says_where_it_may_be_searched() -> None:
    assert set(UNITS) == set(RANGES)


def tunable(strategy: str) -> bool:
    try:
        return bool(searched(strategy, {}))
    except RouteError:
        return False


@pytest.mark.parametrize("strategy", [*filter(tunable, ROUTERS)])
def test_both_ends_of_every_range_are_taken(strategy: str) -> None:
    space = searched(strategy, {})
    # Weights cannot all be 0.
    middle = {name: 1.0 for name in space if "." in name}
    for name, values in space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values
        for value in ends:
            run(documents(30), strategy=strategy, params=nested({**middle, name: value}))


def test_a_default_lies_within_its_range() -> None:
    assert sum(map(tunable, ROUTERS)) >= 10
    for cls in ROUTERS.values():
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            values = RANGES.get(name)
            if isinstance(values, Range) and parameter.default is not None:
                assert values.low <= parameter.default <= values.high, name
            elif isinstance(values, tuple):
                assert parameter.default in values


def test_the_figures_of_a_part_are_those_of_its_requests() -> None:
    result = run(documents(), strategy="random")
    assert figures(result).ttft_ms == pytest.approx(result.ttft_ms.mean)
    assert figures(result).e2e_ms == pytest.approx(result.e2e_ms.mean)
    assert figures(result).goodput == pytest.approx(result.goodput)
    assert figures(result).token_hit_rate == pytest.approx(result.token_hit_rate)
    each = result.per_request
    late = figures(result, 400)
    assert late.e2e_ms == pytest.approx(each.e2e_ms[400:].mean())
    assert late.e2e_ms != figures(result).e2e_ms


def test_losing_requests_does_not_pay() -> None:
    whole = Figures(ttft_ms=100, e2e_ms=1000, goodput=1, token_hit_rate=0.5, served=1)
    lossy = Figures(ttft_ms=99, e2e_ms=990, goodput=0.9, token_hit_rate=0.5, served=0.9)
    for objective in OBJECTIVES:
        assert lossy.cost(objective) > whole.cost(objective)
    nothing = run(documents(20), strategy="random", endpoints=1, events=["fail@0s:0"])
    assert figures(nothing).cost("blend") == np.inf


def test_it_finds_what_the_default_lacks_and_says_so() -> None:
    found = tune(documents(1000), "weighted_score", trials=12, jitter_ms=200)
    assert found.tried == 12
    assert found.worth_it
    assert found.held_out["cost"].ratio + found.held_out["cost"].half_width < 1
    *_, last = lines(found)
    assert last.startswith("more than noise; use it with: --param weights.")
    # What is printed is what was measured.
    args = [part.split("=") for part in last.split("--param ")[1:]]
    assert {name: value.strip() for name, value in args} == {
        name: str(value) for name, value in found.parameters.items()
    }


def test_less_than_five_seeds_claim_nothing() -> None:
    found = tune(documents(1000), "weighted_score", trials=12, seeds=3, jitter_ms=200)
    assert found.held_out["cost"].ratio < 0.9
    assert not found.worth_it
    assert list(lines(found))[-1].endswith("(less than 5 seeds cannot tell)")


def test_the_same_seed_gives_the_same_search() -> None:
    def once(seed: int) -> dict[str, Any]:
        return tune(documents(), "dynamo_cost", trials=6, seeds=2, seed=seed).as_dict()

    assert once(4) == once(4)
    assert once(4)["parameters"] != once(5)["parameters"]


def test_the_second_half_has_no_say_in_what_is_chosen() -> None:
    def trace(tail: int) -> Trace:
        made = Trace(64)
        for at in range(400):
            own = at if at < 200 else at * tail
            made.add(at * 15.0, 640, 20, range(10 * (own % 37), 10 * (own % 37) + 10))
        return made

    one, other = (
        tune(trace(tail), "prefix_cache", trials=8, seeds=2, endpoints=3) for tail in (1, 7)
    )
    assert one.parameters == other.parameters
    assert one.train == other.train
    assert one.default != other.default


def test_parameters_that_are_given_are_not_searched() -> None:
    found = tune(documents(), "dynamo_cost", trials=4, seeds=2, fixed={"prefill_weight": 3.0})
    assert set(found.parameters) <= {"overlap_credit"}
    with pytest.raises(RouteError, match="has no parameter left to tune; these have: least_conn"):
        searched("expected_latency", dict.fromkeys(searched("expected_latency", {}), 1))


SMALL = ("documents", "--requests", "200", "--rate", "30", "--tune", "--trials", "3")


def call(*args: str) -> Result:
    return CliRunner().invoke(main, ["replay", *args])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_command_prints_the_gain_and_writes_it(objective: str) -> None:
    args = (*SMALL, "--strategy", "dynamo_cost", "--objective", objective)
    result = call(*args)
    assert result.exit_code == 0, result.output
    first, *_, gain, _ = result.stdout.splitlines()
    assert first == (
        "dynamo_cost: 3 trials on the first half of documents (200 requests), "
        f"objective {objective}, 5 seeds"
    )
    assert gain.startswith("gain: ")
    found = json.loads(call(*args, "--json", "-").stdout)
    assert (found["objective"], found["tried"], found["seeds"]) == (objective, 3, 5)
    assert found["held_out"]["cost"].keys() == {"ratio", "half_width", "exceeds_noise"}


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((*SMALL,), "--tune: give exactly one --strategy with it"),
        ((*SMALL, "--strategy", "random"), "--tune: random has no parameter left to tune"),
        (
            (*SMALL, "--strategy", "dynamo_cost", "--objective", "speed"),
            "objective: unknown 'speed'; valid: blend, ttft, e2e, goodput",
        ),
        (
            (*SMALL, "--strategy", "dynamo_cost", "--speedup", "1,2"),
            "--tune: leave out --report, --assignments and sweeps",
        ),
        (("--trials", "3"), "--trials shapes a search: give --tune with it"),
        (("--objective", "e2e"), "--objective shapes a search: give --tune with it"),
        (
            ("--tune", "--strategy", "dynamo_cost", "--requests", "3"),
            "--tune: expected at least 4 requests and 2 trials, got 3 and 40",
        ),
        (
            ("--tune", "--strategy", "routecore:RoundRobinRouter"),
            "--tune: routecore:RoundRobinRouter is no compiled strategy",
        ),
    ],
)
def test_bad_arguments_are_one_line(args: tuple[str, ...], reason: str) -> None:
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {reason}")
    assert result.stderr.count("\n") == 1


def test_without_its_library_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = call(*SMALL, "--strategy", "dynamo_cost")
    assert result.exit_code == 2
    assert result.stderr == "error: --tune needs optuna: pip install 'routecore[tune]'\n"
