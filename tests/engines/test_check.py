"""`routecore kv-events check` against a live engine: all is well, and what it says where not."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from routecore.cli import main
from vllm_server import Engine

pytestmark = pytest.mark.engines


def run(*arguments: str) -> tuple[int, dict[str, str]]:
    """Exit code, and the result of each finding."""
    found = CliRunner().invoke(main, ["kv-events", "check", "--json", *arguments])
    lines = [json.loads(line) for line in found.output.splitlines() if line.startswith("{")]
    print(found.output)
    return found.exit_code, {line["what"]: line["result"] for line in lines}


def test_ids_and_promises_of_an_engine_that_is_well(engine: Engine, model: Path) -> None:
    source = engine.source
    events = ["--events", source.address, "--replay", str(source.replay)]
    code, results = run(engine.url, *events, "--tokenizer", str(model))
    assert set(results.values()) == {"ok"} and len(results) == 12
    assert code == 0


def test_another_template_differs(engine: Engine, model: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    code, results = run(engine.url, "--tokenizer", str(tmp_path))
    assert code == 1 and results["ids of a text"] == "ok"
    assert results["ids of a chat: user"] == "differs"
