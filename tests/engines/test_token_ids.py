"""Token ids of `PromptTokens` are those that vLLM computes, by body and by template."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bodies import chats, completions
from routecore.kv_events import PromptTokens
from vllm_server import TEMPLATES, Engine

pytestmark = pytest.mark.engines

# Fields of a chat that /tokenize knows.
TOKENIZED = {"messages", "tools", "add_generation_prompt", "continue_final_message"}
TOKENIZED |= {"chat_template_kwargs", "add_special_tokens"}


def ours(tokens: PromptTokens, body: dict[str, Any]) -> list[int] | None:
    """Our ids; None where the body cannot be rendered."""
    try:
        ids = tokens.ids({"model": "tiny", **body})
    except Exception:  # a template that refuses the body
        return None
    return None if ids is None else list(ids)


def folder_of(model: Path, template: str, to: Path) -> Path:
    """The model with another chat template."""
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("*.safetensors"))
    (to / "chat_template.jinja").write_text(template, "utf-8")
    return to


@pytest.mark.parametrize("name", sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
def test_chats_are_rendered_as_the_engine_renders_them(
    engine: Engine, model: Path, tmp_path: Path, name: str
) -> None:
    template = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    tokens = PromptTokens.from_model(folder_of(model, template, tmp_path / "model"))
    wrong, refused, seen = [], 0, 0
    for body in chats():
        there = engine.ids({**body, "chat_template": template})
        here = ours(tokens, body)
        if there is None:
            refused += 1
            continue
        seen += 1
        if here != there:
            wrong.append(json.dumps({"body": body, "ours": here, "theirs": there})[:600])
        elif not body.keys() - TOKENIZED:
            answer = engine.post("/tokenize", {**body, "chat_template": template})
            if answer.status_code == 200 and answer.json()["tokens"] != here:
                wrong.append(json.dumps({"tokenize": body})[:600])
    print(f"{name}: {seen - len(wrong)} of {seen} equal, {refused} refused by the engine")
    assert not wrong, "\n".join(wrong[:8])  # the first show what differs
    assert seen >= 40


def test_completions_are_tokenised_as_the_engine_does(engine: Engine, model: Path) -> None:
    tokens = PromptTokens.from_model(model)
    for body in completions():
        assert ours(tokens, body) == engine.ids(body), body
