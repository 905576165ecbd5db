"""`routecore replay`: what it prints and writes, and one line with exit code 2 for bad input."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from routecore import ROUTERS
from routecore.cli import main
from routecore.replay import generate, run

SMALL = ("--requests", "120", "--endpoints", "3")


def call(*args: str) -> Result:
    return CliRunner().invoke(main, ["replay", *args])


def refused(*args: str) -> str:
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("error: ").rstrip("\n")


def mooncake(path: Path, *extra: str) -> Path:
    row = {"input_length": 600, "output_length": 3}
    rows = [json.dumps({**row, "timestamp": t, "hash_ids": [t, t + 1]}) for t in range(0, 400, 4)]
    path.write_text("\n".join([*rows, *extra]) + "\n")
    return path


def test_without_a_trace_every_strategy_meets_a_generated_one() -> None:
    result = call(*SMALL)
    assert result.exit_code == 0, result.output
    for strategy in ROUTERS:
        assert f"\n{strategy} " in result.stdout


def test_json_has_the_promised_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert call(*SMALL, "--strategy", "random", "--json", str(path)).exit_code == 0
    (figures,) = json.loads(path.read_text())["results"]
    assert figures["strategy"] == "random"
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        assert set(figures[name]) == {"mean", "p50", "p90", "p99"}
    numbers = ("token_hit_rate", "max_over_mean_load", "output_tokens_per_s", "decisions_per_s")
    assert all(figures[name] > 0 for name in (*numbers, "requests", "wall_s"))
    assert json.loads(call(*SMALL, "--json", "-").stdout)["comparison"]


def test_assignments_are_one_number_a_line_in_trace_order(tmp_path: Path) -> None:
    path = tmp_path / "assigned"
    args = ("chat", *SMALL, "--strategy", "power_of_two", "--seed", "3")
    assert call(*args, "--assignments", str(path)).exit_code == 0
    expected = run(
        generate("chat", requests=120, seed=3), strategy="power_of_two", endpoints=3, seed=3
    )
    numbers = [int(line) for line in path.read_text().splitlines()]
    assert numbers == expected.per_request.endpoint.tolist()


def test_a_sweep_finds_the_knee_and_seeds_tell_noise() -> None:
    result = call(
        *("documents", "--requests", "600", "--endpoints", "2", "--seeds", "5", "--json", "-"),
        *("--speedup", "0.5,1,8", "--strategy", "prefix_affinity,round_robin"),
    )
    found = json.loads(result.stdout)
    assert len(found["results"]) == 3 * 2 * 5
    rows = {(row["strategy"], row["speedup"]): row for row in found["comparison"]}
    assert rows["prefix_affinity", 0.5]["against"]["ttft_ms.mean"]["exceeds_noise"]
    assert not rows["round_robin", 0.5]["against"]
    assert found["knees"]["prefix_affinity"] in (0.5, 1)


def test_a_file_and_its_bad_lines(tmp_path: Path) -> None:
    path = mooncake(tmp_path / "t.jsonl", "{}")
    assert refused(str(path)) == (
        f"{path}:101: output_length: missing (--skip-bad leaves such lines out)"
    )
    result = call(str(path), "--skip-bad", "--strategy", "round_robin")
    assert result.exit_code == 0
    assert result.stderr == "1 bad lines left out\n"


def test_parameters_reach_the_strategy() -> None:
    result = call(
        *SMALL, "--strategy", "weighted_score", "--param", "weights.in_flight=2", "--json", "-"
    )
    (figures,) = json.loads(result.stdout)["results"]
    assert figures["parameters"]["weights"] == {"in_flight": 2}


def test_a_router_of_ones_own_is_named_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "class Last:\n"
        "    def route_request(self, endpoints, *_):\n"
        "        return endpoints[-1].url\n"
    )
    monkeypatch.chdir(tmp_path)
    result = call(*SMALL, "--strategy", "mine:Last", "--json", "-")
    (figures,) = json.loads(result.stdout)["results"]
    assert (figures["strategy"], figures["max_share"]) == ("mine:Last", 1)
    assert refused("--strategy", "mine:First").startswith("--strategy mine:First: ")


def test_engines_that_fail_are_events() -> None:
    result = call(*SMALL, "--event", "fail@2s:0", "--strategy", "round_robin", "--json", "-")
    assert json.loads(result.stdout)["results"][0]["max_share"] > 0.4


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--strategy", "fastest"), "--strategy: unknown 'fastest'; valid: round_robin"),
        (("nowhere.jsonl",), "nowhere.jsonl: No such file or directory"),
        (("--speedup", "fast"), "--speedup: expected numbers with commas between, got 'fast'"),
        (("--speedup", "0"), "speedup: expected a number above 0, got 0"),
        (("--param", "x=1"), "--param and --assignments: give exactly one --strategy"),
        (("--strategy", "random", "--param", "x"), "--param: expected key=value, got 'x'"),
        (("--strategy", "random", "--param", "x=1"), "random takes no parameter 'x'"),
        (("--strategy", "random", "--speedup", "1,2", "--assignments", "x"), "give one --speedup"),
        (("--event", "die"), "event 'die': expected fail@TIME:ENDPOINT"),
        (("--endpoints", "0"), "--endpoints: expected an integer from 1 to 65,536"),
        (("--json", "/nowhere/x", *SMALL), "--json /nowhere/x: No such file or directory"),
        (("--speeds", "1,2"), "speeds: expected one for each of 8 endpoints, got 2"),
        (("--engine", "abacus"), "engine: unknown 'abacus'; valid: "),
    ],
)
def test_bad_arguments_are_one_line(args: tuple[str, ...], text: str) -> None:
    assert text in refused(*args)


def test_a_workloads_size_is_not_a_files(tmp_path: Path) -> None:
    path = mooncake(tmp_path / "t.jsonl")
    assert refused(str(path), "--rate", "3").startswith("--rate shapes a generated workload")


def test_ctrl_c_ends_a_run_that_takes_ages(tmp_path: Path) -> None:
    # Few requests, and a scrape for each millisecond of the hours that they decode.
    trace = tmp_path / "trace.jsonl"
    row = '{"timestamp": 0, "input_length": 9, "output_length": 4000000, "hash_ids": [1]}\n'
    trace.write_text(row * 3)
    command = ["replay", str(trace), "--endpoints", "1", "--stats-period", "1"]
    command += ["--strategy", "least_connections", "--kv-blocks", "1000000"]
    code = "from routecore.cli import main; print(1, flush=True); main()"
    line = [sys.executable, "-c", code, *command]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None and run.stdout.readline()
        with suppress(subprocess.TimeoutExpired):
            run.wait(3)
            raise AssertionError("it ended by itself")
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
