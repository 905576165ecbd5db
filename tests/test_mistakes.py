"""Likely mistakes on the command line: one line that names thing and fix, and exit code 2."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from routecore import __version__
from routecore.cli import main
from singletons import forget_singletons

ROW = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}

FILES: dict[str, bytes] = {
    "empty.jsonl": b"",
    "notes.txt": b"just some notes\n",
    "table.csv": b"time,tokens\n1,2\n",
    "no_time.jsonl": json.dumps({"body": {"prompt": "hi"}}).encode(),
    "odd_time.jsonl": json.dumps({"timestamp": "noon", "body": {"prompt": "hi"}}).encode(),
    "bad_line.jsonl": b'{"timestamp": 0}\n',
    "cut.jsonl.gz": gzip.compress(b"x" * 9000)[:40],
    "good.jsonl": json.dumps(ROW).encode(),
    "mine.py": (
        b"class Raises:\n"
        b"    def route_request(self, *_):\n"
        b"        raise KeyError('boom')\n"
        b"class Asks:\n"
        b"    def __init__(self, weight): ...\n"
        b"    def route_request(self, *_): ...\n"
        b"class Waits:\n"
        b"    async def route_request(self, *_): ...\n"
        b"class Lost:\n"
        b"    def route_request(self, *_): return 'http://elsewhere'\n"
        b"class Empty: ...\n"
    ),
    "broken.py": b"def route_request(:\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "logs").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mine", "broken"):
        sys.modules.pop(name, None)
    forget_singletons()


SMALL = "--requests 20 --strategy"

MISTAKES = [
    # The command itself.
    ("replya", "no command 'replya'; did you mean `routecore replay`?"),
    ("good.jsonl", "to replay a file: `routecore replay good.jsonl`"),
    ("bench", "no command 'bench'; commands: demo, engines, kv-events, "),
    ("--strategy random", "as in `routecore demo --strategy` or `routecore replay --strategy`"),
    ("kv-events tial tcp://x:1", "did you mean `routecore kv-events tail`?"),
    ("replay --strateg random", "did you mean --strategy?"),
    ("replay --gpu 4", "no option --gpu of `routecore replay`; see `routecore replay --help`"),
    ("replay --strategy", "--strategy' requires an argument; see `routecore replay --help`"),
    ("shadow-report", "usage: routecore shadow-report [OPTIONS] FILES..."),
    ("kv-events check", "usage: routecore kv-events check [OPTIONS] URL"),
    # What to replay.
    ("replay nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ("replay documnets", "did you mean documents?"),
    ("replay expected_latency", "to replay this strategy alone: --strategy expected_latency"),
    ("replay logs", "logs: Is a directory"),
    ("replay empty.jsonl", "empty.jsonl: the file is empty"),
    ("replay notes.txt", "formats mooncake, azure, bailian, openai"),
    ("replay table.csv", "formats mooncake, azure, bailian, openai"),
    ("replay no_time.jsonl", "timestamp: missing; expected seconds, milliseconds or an ISO 8601"),
    ("replay odd_time.jsonl", "expected seconds or an ISO 8601 time, got 'noon'"),
    ("replay bad_line.jsonl", "(--skip-bad leaves such lines out)"),
    ("replay cut.jsonl.gz", "not a whole gzip file"),
    ("replay good.jsonl --format opnai", "did you mean openai?"),
    ("replay good.jsonl --rate 3", "--rate shapes a generated workload, not a trace file"),
    ("replay --format azure", "--format is about a trace file, and there is none"),
    ("replay good.jsonl more.jsonl", "one TRACE at a time"),
    ("replay --speedup 1 2 3", "lists take commas, as in --speedup 1,2,3"),
    # Numbers.
    ("replay --endpoints 0", "--endpoints: expected an integer from 1 to 65,536, got 0"),
    ("replay --endpoints eight", "--endpoints: expected an integer from 1 to 65,536, got eight"),
    ("replay --seeds 0", "--seeds: expected an integer from 1 to 1,000, got 0"),
    ("replay --seed -1", "--seed: expected an integer from 0"),
    ("replay --rate 0", "--rate: expected a number from 1e-06 to 1,000,000.0, got 0"),
    ("replay --rate fast", "--rate: expected a number"),
    ("replay --speedup 0", "speedup: expected a number above 0, got 0"),
    ("replay --speedup 1x", "--speedup: expected numbers with commas between, got '1x'"),
    ("replay --speeds 1,2", "speeds: expected one for each of 8 endpoints, got 2"),
    ("replay --kv-event-delay 50 --kv-events", "expected a time as 50ms or 5s, got '50'"),
    ("replay --kv-event-delay 50ms", "give --kv-events with it"),
    ("replay --event fail@120:3", "fail@120s:3"),
    (f"replay {SMALL} random --event fail@1s:99", "99"),
    # Strategies and their parameters.
    ("replay --strategy expected_latancy", "did you mean expected_latency?"),
    ("replay --strategy random,", "--strategy: expected a strategy, got nothing"),
    ("replay --strategy prefill_decode", "needs a host that asks for both halves"),
    ("replay --param load_factor=2", "give exactly one --strategy with them"),
    ("replay --strategy prefix_cache --param load_factor", "expected key=value"),
    (f"replay {SMALL} prefix_cache --param load_facto=2", "did you mean load_factor?"),
    (f"replay {SMALL} prefix_cache --param load_factor=high", 'got "high"'),
    (f"replay {SMALL} prefix_cache --param load_factor=0.5", "expected a number from 1"),
    (f"replay {SMALL} random --param seed=1", "the replay has one for all"),
    ("replay --engine h100", "did you mean llama-3.1-8b-h100-tp1 or "),
    ("replay --baseline round-robbin", "--baseline: unknown 'round-robbin'; did you mean"),
    ("replay --slo ttft=fast", "--slo: expected bounds such as ttft_p99=2s,e2e=20s"),
    ("replay --trials 9", "give --tune with it"),
    ("replay --tune", "--tune: give exactly one --strategy with it"),
    ("replay --tune --strategy prefix_cache --objective speed", "objective: unknown 'speed'"),
    ("replay --tune --strategy round_robin", "round_robin has no parameter left to tune"),
    # A router of the user's.
    ("replay --strategy mine.py:Raises", "write the module's name, mine:Raises"),
    ("replay --strategy ours:Raises", "run this in its folder, or set PYTHONPATH"),
    ("replay --strategy mine:Raise", "did you mean Raises?"),
    ("replay --strategy broken:Router", "SyntaxError"),
    ("replay --strategy mine:Empty", "expected a class with route_request("),
    (f"replay {SMALL} mine:Raises", "route_request of mine:Raises raised KeyError('boom') at "),
    (f"replay {SMALL} mine:Asks", "the replay makes it without arguments"),
    (f"replay {SMALL} mine:Waits", "got an awaitable; make it synchronous"),
    (f"replay {SMALL} mine:Lost", "expected the URL of an endpoint, got 'http://elsewhere'"),
    # Where results go.
    ("replay --report /nowhere/page.html", "--report /nowhere/page.html: No such file"),
    ("replay --report logs", "--report logs: Is a directory"),
    ("replay --json - --report -", "only one of them can be -"),
    ("replay --assignments out", "give exactly one --strategy with them"),
    # The demo.
    ("demo documents", "for a file of yours: routecore replay FILE"),
    ("demo --strategy mine:Raises", "routecore replay --strategy mine:Raises"),
    ("demo --strategy fastest", "--strategy: unknown 'fastest'"),
    ("demo --endpoints 0", "--endpoints: expected an integer from 1 to 256, got 0"),
    ("demo --live --report page.html", "the live fleet writes no page"),
    ("demo --trace nowhere.jsonl", "nowhere.jsonl"),
    ("demo --kill 20:3", "20s:3"),
    ("demo --routers 0", "--routers: expected an integer from 1 to 32, got 0"),
    ("demo --replicas zmq+ipc:///tmp/x", "add --routers 4"),
    ("demo --routers 2 --replicas redis:6379", "redis:6379"),
    ("demo --routers 2 --replicas http://x", "expected redis://…"),
    ("demo --routers 2 --envoy", "`routecore picker --workers`"),
    # Live engines and shadow records.
    ("kv-events tail engine-1:5557", "expected tcp://host:port"),
    ("kv-events tail tcp://127.0.0.1:9 --replay a --replay b", "expected one per address (1)"),
    ("kv-events tail tcp://127.0.0.1:9 --seconds 0.1 --every 0.1 --json", "not connected within"),
    ("kv-events check 127.0.0.1:9", "127.0.0.1:9"),
    ("kv-events check http://127.0.0.1:9", "Connection refused"),
    ("kv-events check http://127.0.0.1:9 --header token", "--header: expected NAME:VALUE"),
    ("shadow-report nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ("shadow-report notes.txt", "no record of shadow mode in it"),
]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_with_the_fix(line: str, said: str) -> None:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert said in result.stderr


def test_the_traceback_of_a_router_of_ones_own_can_be_had() -> None:
    line = f"replay {SMALL} mine:Raises --verbose"
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2
    assert "raise KeyError('boom')" in result.stderr


@pytest.mark.parametrize("line", ["-h", "--help", "replay -h", "demo -h", "kv-events tail -h"])
def test_help_is_help(line: str) -> None:
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


def test_the_command_alone_lists_the_commands() -> None:
    result = CliRunner().invoke(main, [])
    assert "replay" in result.output
    assert result.exit_code == 2


def test_it_runs_as_a_module_and_says_its_version() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "routecore", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"routecore {__version__}\n"


@pytest.mark.parametrize("output", ["> /dev/full", ">&-"])
def test_output_that_goes_nowhere_is_an_error_in_one_line(output: str) -> None:
    if "full" in output and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m routecore strategies {output}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: standard output: ") and done.stderr.count("\n") == 1
