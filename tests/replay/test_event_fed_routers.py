"""Routers that hear the engines' KV events, in a replay and from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from routecore import RouteError
from routecore.cli import main
from routecore.replay import ReplayResult, Trace, generate, run


def agents(seed: int) -> Trace:
    return generate("agentic", seed=seed, requests=1000)


def replayed(routers: int, delay: float | None, seed: int) -> ReplayResult:
    return run(
        agents(seed),
        strategy="expected_latency",
        endpoints=16,
        routers=routers,
        seed=seed,
        kv_event_delay_ms=delay,
    )


def test_four_routers_that_hear_the_same_engines_hit_as_one_does() -> None:
    def hit(routers: int, delay: float | None) -> float:
        return float(np.mean([replayed(routers, delay, seed).token_hit_rate for seed in range(2)]))

    one, four = hit(1, 50.0), hit(4, 50.0)
    assert four == pytest.approx(one, rel=0.01)
    assert hit(4, None) < 0.95 * one  # what they lose where each knows only its own requests


def test_a_lag_without_end_is_no_knowledge() -> None:
    at_once, never = replayed(2, 0.0, 1), replayed(2, 1e12, 1)
    assert at_once.settings.kv_event_delay_ms == 0.0
    assert never.token_hit_rate < at_once.token_hit_rate - 0.05


def test_strategies_that_read_no_prompts_are_as_before() -> None:
    trace = agents(2)
    plain, listening = (
        run(trace, strategy="least_connections", seed=1, kv_event_delay_ms=delay)
        for delay in (None, 5.0)
    )
    assert (plain.per_request.endpoint == listening.per_request.endpoint).all()


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
def test_a_lag_that_is_none_is_named(delay: float) -> None:
    with pytest.raises(RouteError, match="KV event delay: expected milliseconds"):
        run(agents(1), kv_event_delay_ms=delay)


def test_the_command_takes_a_lag(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    args = ["replay", "chat", "--requests", "300", "--strategy", "prefix_cache", "--routers", "2"]
    args += ["--kv-events", "--kv-event-delay", "50ms", "--json", str(out)]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    (result,) = json.loads(out.read_text())["results"]
    assert result["kv_event_delay_ms"] == 50.0


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--kv-events", "--kv-event-delay", "50"], "expected a time as 50ms or 5s, got '50'"),
        (["--kv-event-delay", "50ms"], "give --kv-events with it"),
    ],
)
def test_a_lag_the_command_cannot_take_is_named(args: list[str], named: str) -> None:
    done = CliRunner().invoke(main, ["replay", "chat", "--requests", "300", *args])
    assert done.exit_code == 2
    assert named in " ".join(done.output.replace("│", " ").split())
