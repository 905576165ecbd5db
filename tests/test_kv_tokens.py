"""Token ids of bodies: the host's, a tokenizer's, and what the cache of pieces may not change."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routecore import RouteError
from routecore.kv_events import PromptTokens
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
SPECIAL = {"bos_token": "<|bos|>"}


def tokenizer() -> Tokenizer:
    """Bytes as tokens, and special tokens around turns."""
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(_letters())}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<|turn|>", "<|end|>", "<|bos|>"])
    return made


def _letters() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]}


def counting(made: PromptTokens) -> list[str]:
    """The texts that are tokenised from now on."""
    seen: list[str] = []
    encode = made._encode

    def count(text: str, whole: bool = False) -> Any:
        seen.append(text)
        return encode(text, whole)

    made._encode = count  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("body", [{"prompt": [1, 2]}, {"prompt_token_ids": [1, 2], "prompt": "x"}])
def test_ids_that_the_host_has_are_taken(body: dict[str, Any]) -> None:
    assert PromptTokens().ids(body) == [1, 2]


def test_a_chat_is_rendered_and_tokenised_as_a_whole_would_be() -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL)
    ids = made.ids(chat("hi", "yes?", "bye"))
    text = (
        "<|bos|><|turn|>user\nhi<|end|><|turn|>assistant\nyes?<|end|><|turn|>user\nbye<|end|>"
        "<|turn|>assistant\n"
    )
    assert ids is not None
    assert list(ids) == tokenizer().encode(text, add_special_tokens=False).ids


def test_a_long_conversation_tokenises_its_new_turn_only() -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL)
    made._checks_left = 0
    seen = counting(made)
    made.ids(chat("one", "two", "three"))
    seen.clear()
    made.ids(chat("one", "two", "three", "four", "five"))
    assert seen == ["assistant\nfour", "user\nfive"]


@given(st.lists(st.text(max_size=12) | st.sampled_from(["<|end|>", " <|turn|> "]), max_size=5))
def test_pieces_give_what_the_whole_gives(contents: list[str]) -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL)
    made._checks_left = 0
    assert made._templates is not None
    template = made._templates.of(None)
    assert template is not None
    text = template.render(chat(*contents)["messages"], **SPECIAL)
    body = {**chat(*contents), "add_generation_prompt": False}
    assert list(made.ids(body) or ()) == tokenizer().encode(text, add_special_tokens=False).ids


class LooksBack:
    """A tokenizer whose tokens depend on the whole text: cutting would change them."""

    def __init__(self) -> None:
        self.inner = tokenizer()

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self.inner.get_added_tokens_decoder()

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        ids = self.inner.encode(text, add_special_tokens=False).ids
        return SimpleNamespace(ids=[len(text), *ids])


def test_a_tokenizer_that_looks_past_special_tokens_is_not_cut() -> None:
    made = PromptTokens(LooksBack(), TEMPLATE, special_tokens=SPECIAL)
    first = made.ids(chat("hi"))
    assert first is not None
    assert first[0] == len("<|bos|><|turn|>user\nhi<|end|><|turn|>assistant\n")
    assert made._cut is None
    assert made.ids(chat("hi")) == first


def test_the_cache_is_bounded() -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL, cache_tokens=500)
    for i in range(200):
        made.ids(chat(f"question {i}"))
    assert sum(len(ids) + 1 for ids in made._pieces.values()) <= 500
    assert made.ids({"prompt": "y" * 1000}) is not None  # larger than the cache


def test_completions_get_the_tokenizers_own_start() -> None:
    from tokenizers.processors import TemplateProcessing

    with_start = tokenizer()
    bos = with_start.token_to_id("<|bos|>")
    with_start.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", bos)]
    )
    made = PromptTokens(with_start)
    ids = made.ids({"prompt": "hi"})
    assert ids is not None
    assert (ids[0], len(ids)) == (bos, 3)


def test_templates_run_in_a_sandbox() -> None:
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    assert PromptTokens(tokenizer(), escape).ids(chat("hi")) is None
    refused = "{{ raise_exception('roles must alternate') }}"
    assert PromptTokens(tokenizer(), refused).ids(chat("hi")) is None


def test_lone_surrogates_are_an_ordinary_day() -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL)
    assert made.ids(chat("\ud800 hi")) is not None
    assert made.ids({"prompt": "\udfff"}) is not None


def test_without_tokenizer_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made = PromptTokens()
    with caplog.at_level(logging.WARNING):
        assert made.ids(chat("hi")) is None
        assert made.ids({"prompt": "text"}) is None
        assert made.ids({}) is None
    assert caplog.text.count("no tokenizer") == 1


def test_a_models_folder(tmp_path: Path) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "bos_token": {"content": "<|bos|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    expected = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL).ids(chat("hi"))
    assert PromptTokens.from_model(tmp_path).ids(chat("hi")) == expected
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert len(PromptTokens.from_model(tmp_path).ids(chat("hi")) or ()) == 2


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match=r"tokenizer .*tokenizer\.json"):
        PromptTokens.from_model(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(RouteError, match="chat template in"):
        PromptTokens.from_model(tmp_path)
    with pytest.raises(RouteError, match="chat template"):
        PromptTokens(tokenizer(), "{% for %}")


def test_off_the_event_loop() -> None:
    made = PromptTokens(tokenizer(), TEMPLATE, special_tokens=SPECIAL)

    async def ask() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return await made.ids_in(pool, chat("hi"))

    assert asyncio.run(ask()) == made.ids(chat("hi"))
