"""`--slo`, `--baseline` and strategies by other names: what people and CI type."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from routecore import RouteError
from routecore.cli import main
from routecore.cli.replay_args import key
from routecore.replay.slo import objectives

SMALL = ("--requests", "150", "--endpoints", "2")


def call(*args: str) -> Result:
    return CliRunner().invoke(main, ["replay", *SMALL, *args])


def test_bounds_have_a_figure_a_part_and_a_unit() -> None:
    first, second = objectives("ttft_p99=2s, e2e=250ms")
    assert (first.figure, first.part, first.most_ms) == ("ttft_ms", "p99", 2000)
    assert (second.name, second.most_ms) == ("e2e_mean", 250)


@pytest.mark.parametrize(
    "text", ["", "ttft", "ttft=2", "ttft_p98=2s", "itl=2s", "ttft=-1s", "e2e=2m"]
)
def test_other_bounds_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(RouteError, match="--slo: expected bounds such as ttft_p99=2s"):
        objectives(text)


def test_a_missed_objective_ends_with_1_and_a_line() -> None:
    missed = call("--strategy", "lmetric", "--slo", "ttft_p99=0.01ms,e2e=1000s")
    assert missed.exit_code == 1
    assert missed.stderr.startswith("lmetric x1 misses the objective: ttft_p99 ")
    assert "e2e" not in missed.stderr
    assert call("--strategy", "lmetric", "--slo", "e2e=1000s").exit_code == 0


def test_without_named_strategies_the_best_must_meet_it() -> None:
    assert call("--slo", "e2e=1000s").exit_code == 0
    found = json.loads(call("--slo", "e2e=0.1ms", "--json").stdout)
    assert len(found["missed"]) == 1


def test_the_baseline_is_any_strategy() -> None:
    result = call("--strategy", "lmetric", "--baseline", "least_connections")
    assert "vs baseline" in result.stdout
    assert "round_robin" not in result.stdout
    assert "instead of" in result.stdout


def test_a_router_of_ones_own_is_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_router.py").write_text(
        "class First:\n"
        "    def route_request(self, endpoints, engine_stats, request_stats, request):\n"
        "        return endpoints[0].url\n"
    )
    monkeypatch.chdir(tmp_path)
    result = call("--strategy", "own_router:First,lmetric")
    assert result.exit_code == 0, result.output
    assert "with own_router:First" in result.stdout
    wrong = call("--strategy", "own_router.py:First")
    assert "write the module's name, own_router:First" in wrong.stderr


@pytest.mark.parametrize(
    "word",
    ["least_connections", "least-connections", "Least_Connections", "LeastConnectionsRouter"],
)
def test_a_strategy_goes_by_its_word_or_class(word: str) -> None:
    assert key(word, "--strategy") == "least_connections"


def test_a_near_miss_is_named() -> None:
    with pytest.raises(RouteError, match=r"did you mean expected_latency\? valid: round_robin"):
        key("expectd-latency", "--strategy")
    with pytest.raises(RouteError, match="both halves"):
        key("prefill_decode", "--strategy")


def test_json_without_a_file_goes_to_stdout() -> None:
    assert json.loads(call("--strategy", "random", "--json").stdout)["comparison"]


@pytest.mark.parametrize("option", [("--format", "foo"), ("--trace-block", "64"), ("--skip-bad",)])
def test_options_of_files_are_refused_without_one(option: tuple[str, ...]) -> None:
    result = call("chat", *option)
    assert result.exit_code == 2
    assert "is about a trace file" in result.stderr


def test_the_help_has_headings_and_every_option() -> None:
    text = CliRunner().invoke(main, ["replay", "-h"]).stdout
    for heading in ("Fleet:", "Load:", "Strategies:", "Output:"):
        assert f"\n{heading}\n" in text
    for option in main.commands["replay"].params:
        if option.opts[0].startswith("--"):
            assert option.opts[0] in text
