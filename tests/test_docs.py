"""Every Python block of README and docs runs, and every command in them exists."""

import gzip
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from routecore.cli import main
from routecore.integrations.shared.shadow import Record, ShadowLog
from routecore.replay import Trace, generate

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

NEEDS_A_HOST = {"docs/ray-serve.md": "ray", "docs/litellm.md": "litellm"}
"""Pages whose Python blocks need a host's package, which `make test-hosts` brings."""
LIVE = {"--live", "--kill", "--sick", "--hold", "--kv-events"}
"""Options of a demo that takes as long as its traffic."""
NEEDS_AN_ENGINE = "KVEventSubscriber("
"""A block with this opens sockets to engines; its imports are checked alone."""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield text


def python_blocks() -> Iterator[object]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        # What a host warns of at its import is its own affair.
        marks = [pytest.mark.filterwarnings("ignore")] if name in NEEDS_A_HOST else []
        for at, text in enumerate(blocks(page, "python")):
            yield pytest.param(name, text, id=f"{name}-{at}", marks=marks)


@pytest.mark.parametrize(("page", "text"), list(python_blocks()))
def test_a_python_block_runs(
    page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = compile(text, page, "exec")
    if page in NEEDS_A_HOST and find_spec(NEEDS_A_HOST[page]) is None:
        pytest.skip(f"{NEEDS_A_HOST[page]} is not installed: `make test-hosts`")
    if "ray.serve.llm" in text and find_spec("vllm") is None:
        pytest.skip("Serve LLM needs vLLM, also to be configured")
    if NEEDS_AN_ENGINE in text:
        text = "\n".join(line for line in text.splitlines() if re.match(r"(from|import) ", line))
        code = compile(text, page, "exec")
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "documented"})


def commands() -> Iterator[object]:
    """The commands of shell blocks, continued lines joined, comments and prompts left out."""
    seen = set()
    for page in PAGES:
        for text in blocks(page, "", "sh", "bash", "console"):
            for line in text.replace("\\\n", " ").splitlines():
                words = line.split("  #")[0].strip()
                if re.match(r"(\$ )?(routecore|make|python|pip) ", words) and words not in seen:
                    seen.add(words)
                    name = page.relative_to(ROOT)
                    yield pytest.param(words.removeprefix("$ "), id=f"{name}: {words[:50]}")


def few(kind: str, **drawn: Any) -> Trace:
    """A workload of few requests, unless the command says how many."""
    return generate(kind, **{"requests": 60, **drawn})


def runs(words: list[str]) -> bool:
    """Whether it is a replay, or the demo's, and the files that it reads are there."""
    if "--print-envoy" in words:
        return True
    if words[0] not in ("replay", "demo", "shadow-report") or LIVE & set(words):
        return False
    reads = [word for word in words[1:] if word.endswith((".jsonl", ".gz"))]
    return all(Path(word).exists() for word in reads)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader of the pages has: a log, a trace, a router of their own, shadow records."""
    monkeypatch.chdir(tmp_path)
    said = [{"role": "user", "content": "where is my parcel? " * 40}]
    usage = {"prompt_tokens": 210, "completion_tokens": 4}
    rows = [
        {"timestamp": 1.7e9 + at, "body": {"model": "m", "messages": said}, "usage": usage}
        for at in range(40)
    ]
    Path("requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = {"input_length": 600, "output_length": 3}
    lines = [json.dumps({**row, "timestamp": at, "hash_ids": [at, at + 1]}) for at in range(40)]
    for name in ("trace.jsonl.gz", "mooncake_conversation_trace.jsonl.gz"):
        Path(name).write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setattr("routecore.replay.generate", few)
    log = ShadowLog(tmp_path / "routecore-shadow-4711.jsonl")
    for at in range(40):
        sent = {"prompt_tokens": 260.0, "hash_ids": [at % 3, at], "output_tokens": 20}
        log.write(Record(time=float(at), strategy="s", host="a", ours="b", **sent))
    log.close()
    Path("mymodule.py").write_text(
        "class MyRouter:\n"
        "    def route_request(self, endpoints, engine_stats, request_stats, request):\n"
        "        return endpoints[0].url\n"
    )
    return tmp_path


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_runs_or_exists(command: str, folder: Path) -> None:
    first, *words = shlex.split(command.split(" > ")[0].split(" & ")[0])
    words = [found for word in words for found in sorted(glob(word)) or [word]]
    if first == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in targets
    elif first == "python":
        if words[0] != "-m":
            assert (ROOT / words[0]).exists()
    elif first == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = re.findall(r"\[([\w,-]+)\]", " ".join(words))
        assert {e for group in named for e in group.split(",")} <= {
            *extras["optional-dependencies"]
        }
    elif runs(words):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    elif words[0] == "demo":
        options = {opt for param in main.commands["demo"].params for opt in param.opts}
        assert {word for word in words if word.startswith("--")} <= options
    else:
        # Inputs that only the reader has: the options must be known all the same.
        result = CliRunner().invoke(main, [words[0], "--help"])
        assert result.exit_code == 0
        command_help = result.stdout
        sub = [word for word in words[1:] if word in ("tail", "check")]
        if sub:
            command_help = CliRunner().invoke(main, [words[0], sub[0], "--help"]).stdout
        for word in words:
            if word.startswith("--"):
                assert word in command_help


def test_the_output_that_the_readme_prints_is_real(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    printed, _ = blocks(ROOT / "README.md", "text")
    exec(compile(code, "README.md", "exec"), {"__name__": "documented"})
    assert capsys.readouterr().out == printed
