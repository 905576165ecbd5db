"""The command: what it prints, and one line with exit code 2 for bad input."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from routecore import ROUTERS
from routecore.cli import main


def call(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def refused(*args: str) -> str:
    result = call(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_strategies_lists_them_all_with_needs_defaults_and_units() -> None:
    rows = json.loads(call("strategies", "--json").output)
    assert [row["key"] for row in rows] == [*ROUTERS, "prefill_decode"]
    (prefix,) = (row for row in rows if row["key"] == "prefix_affinity")
    assert prefix["class"] == "PrefixAffinityRouter"
    assert "prompt" in prefix["needs"]
    assert prefix["parameters"]["block_chars"] == {"default": 128, "unit": "bytes"}
    assert all(row["needs"] and p["unit"] for row in rows for p in row["parameters"].values())
    shown = call("strategies").output
    assert all(f"\n{row['key']} " in "\n" + shown for row in rows)
    assert "load_factor=1.25               times the mean load\n" in shown


def test_demo_sends_a_users_own_requests_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    bodies: list[dict[str, object]] = [
        {"model": "m", "messages": [{"role": "user", "content": f"question {i} " * 200}]}
        for i in range(6)
    ]
    bodies += [{"prompt": "complete me", "max_tokens": 3}, {"prompt": ["a", "b"], "stream": False}]
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    result = call(
        *("demo", "--json", "--requests", str(path), "--strategy", "prefix_affinity"),
        *("--endpoints", "2", "--seconds", "1", "--speed", "8", "--rate", "20"),
    )
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(result.stdout)["results"]
    assert (figures["requests"], figures["errors"]) == (len(bodies), 0)
    assert figures["ttft_p50_ms"] > 0


def test_demo_prints_its_figures_as_json() -> None:
    options = {"endpoints": 2, "seconds": 0.4, "speed": 8, "rate": 10, "strategy": "random"}
    args = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    result = call("demo", "--json", *args)
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(result.stdout)["results"]
    assert figures["strategy"] == "random"
    assert figures["requests"] > 0


def test_an_unknown_strategy_is_named_with_the_valid_ones() -> None:
    line = refused("demo", "--strategy", "random,fastest")
    assert "'fastest'" in line
    assert "round_robin" in line


@pytest.mark.parametrize(
    "args",
    [
        ("--endpoints", "0"),
        ("--rate", "x"),
        ("--seconds", "-1"),
        ("--nothing",),
        ("--trace", "/does/not/exist"),
        ("--trace", "a", "--requests", "b"),
    ],
)
def test_bad_options_are_refused(args: tuple[str, ...]) -> None:
    refused("demo", *args)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", "line"),
        ("[]", "line"),
        ("{}", "messages"),
        ('{"messages": "hi"}', "messages"),
        ('{"prompt": "hi", "max_tokens": 0}', "max_tokens"),
    ],
)
def test_a_bad_request_line_is_named(tmp_path: Path, line: str, field: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "good"}\n\n' + line + "\n")
    assert f"{path}:3: {field}: " in refused("demo", "--requests", str(path))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_length": "x"}, "input_length"),
        ({"input_length": 2000}, "input_length"),
        ({"output_length": 0}, "output_length"),
        ({"hash_ids": None}, "hash_ids"),
    ],
)
def test_a_bad_trace_line_is_named(tmp_path: Path, change: dict[str, object], field: str) -> None:
    path = tmp_path / "t.jsonl"
    row = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1], **change}
    path.write_text(json.dumps(row) + "\n")
    assert f"{path}:1: {field}: " in refused("demo", "--trace", str(path))


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert "pip install 'routecore[demo]'" in refused("demo", "--live")


def demo(tmp_path: Path, *args: str) -> Result:
    page = tmp_path / "page.html"
    return call("demo", "--strategy", "round_robin,lmetric", "--report", str(page), *args)


def test_the_demo_is_a_replay_with_a_verdict_and_a_page(tmp_path: Path) -> None:
    result = demo(tmp_path)
    assert result.exit_code == 0, result.output
    assert "lmetric is best: mean TTFT " in result.stdout
    assert max(map(len, result.stdout.splitlines()[:-3])) <= 80
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_the_demo_gives_the_same_figures_for_the_same_seed(tmp_path: Path) -> None:
    def tables(*args: str) -> str:
        return demo(tmp_path, *args).stdout

    assert tables() == tables()
    assert tables("--seed", "1") != tables()
    figures = json.loads(demo(tmp_path, "--json").stdout)
    assert [row["strategy"] for row in figures["results"]] == ["round_robin", "lmetric"]


def test_a_page_that_cannot_be_written_costs_no_figures(tmp_path: Path) -> None:
    result = demo(tmp_path, "--report", str(tmp_path / "nowhere" / "page.html"))
    assert result.exit_code == 0
    assert "is best" in result.stdout
    assert "No page was written" in result.stdout


def test_the_live_demo_runs_three_strategies_and_says_how_far_it_is() -> None:
    result = call(
        "demo", "--live", "--endpoints", "2", "--seconds", "0.3", "--speed", "8", "--hold"
    )
    assert result.exit_code == 0, result.output
    for name in ("round_robin", "least_connections", "expected_latency"):
        assert f"/3 {name}: " in result.stdout
    assert "µs" not in result.stdout


def test_the_live_demo_kills_an_engine_and_shows_it() -> None:
    few = ("--endpoints", "2", "--seconds", "1.5", "--speed", "8", "--rate", "10")
    result = call("demo", *few, "--strategy", "random", "--kill", "2s:1")
    assert result.exit_code == 0, result.output
    assert "engine 1 is killed" in result.stdout
    assert "engine 1 is out (connect)" in result.stdout
    assert "1 (connect)" in result.stdout


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("--kill", "20:3"), "TIME:ENGINE"),
        (("--sick", "20s:8"), "engines 0 to 7"),
        (("--kill", "20s:3", "--seconds", "6"), "--seconds 6"),
    ],
)
def test_troubles_that_make_no_sense_are_refused(args: tuple[str, ...], names: str) -> None:
    assert names in refused("demo", *args)


def test_an_interrupted_live_demo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from routecore.demo import runner

    async def cut(*_: object, **__: object) -> list[runner.Result]:
        return [runner.Result("round_robin", requests=3), runner.Result("random", interrupted=True)]

    monkeypatch.setattr(runner, "run", cut)
    result = call("demo", "--live")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: 1 of 3 strategies were run to the end\n"
