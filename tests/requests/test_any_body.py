"""Whatever a client sends is read without an error, and as itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routecore import _core
from routecore.kv_events import PromptTokens
from routecore.requests import body_of, has_prompt, prompt_fields, usage_in, usage_of
from routecore.requests.body import BESIDE, PROMPTS
from test_kv_tokens import TEMPLATE, tokenizer

KEYS = [*PROMPTS, *BESIDE, "role", "content", "type", "text", "image_url", "url", "source", "data",
        "uuid", "tool_calls", "function", "arguments", "usage"]  # fmt: skip
WORDS = ["user", "system", "text", "image_url", "input_audio", "document", "tool_result", "message",
         "data:image/png;base64,iVBORw0KGgo", "\ud800", "", "x" * 2000]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)
MADE = PromptTokens(tokenizer(), TEMPLATE, special_tokens={"bos_token": "<|bos|>"})


def test_no_key_that_the_core_reads_is_lost_where_fields_come_one_by_one() -> None:
    assert set(_core.BODY_KEYS) <= {*PROMPTS, *BESIDE}


@given(BODIES)
def test_any_body_is_read(body: dict[str, Any]) -> None:
    found = _core.prompt_blocks(body, 16)
    assert found == _core.prompt_blocks(body, 16)
    MADE.ids(body)
    assert has_prompt(body) in (True, False)
    kept = prompt_fields(body.get)
    assert set(kept) <= set(body)
    # What is handed on field by field is the same prompt, and so it is in any order of the keys.
    assert _core.prompt_blocks(kept, 16) == found
    assert _core.prompt_blocks(dict(reversed(body.items())), 16) == found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt_token_ids": [1, 2] * 40}, {"input_ids": [3, 4] * 40}),
        ({"input_ids": [1, 2] * 40}, {"prompt_token_ids": []}),
        ({"input_ids": [1, 2] * 40}, {"prompt_token_ids": None}),
        ({"query": "a" * 200}, {"queries": "b" * 200}),
        ({"prompt": "a", "reasoning_effort": "high" * 50}, {"reasoning": {"effort": "low" * 50}}),
        ({"prompt": "a" * 200, "lora_name": "one"}, {"adapter_id": "two"}),
    ],
)
def test_of_two_keys_that_say_the_same_the_first_counts(first: Any, second: Any) -> None:
    expected = _core.prompt_blocks({**first, **second}, 16)
    assert _core.prompt_blocks({**second, **first}, 16) == expected
    if "lora_name" not in first:  # a second adapter makes another tenant
        assert expected == _core.prompt_blocks(first, 16)
    other = {**first, **second}
    other.pop(next(reversed(first)))
    assert _core.prompt_blocks(other, 16) != expected


@given(VALUES)
def test_any_usage_is_read(counts: Any) -> None:
    found = usage_in(counts)
    assert found is None or all(n is None or 0 <= n <= 10_000_000 for n in found)


@given(
    st.binary(max_size=200) | st.sampled_from([b'{"usage": {"prompt_tokens": 3}}', b"data: [1]"])
)
def test_any_answer_is_read(content: bytes) -> None:
    usage_of(content)


@pytest.mark.parametrize("cached", [b"{", b"\xff", b"", b"[" * 100_000, "text", None])
def test_bodies_that_are_none(cached: Any) -> None:
    class Request:
        _body = cached

    assert body_of(Request()) is None


@pytest.mark.parametrize(
    "nest",
    [
        lambda deep: [deep],
        lambda deep: {"function": deep},
        lambda deep: {"content": [deep]},
        lambda deep: {"type": "tool_result", "content": [deep]},
        lambda deep: {"source": {"type": "content", "content": [deep]}, "type": "document"},
    ],
)
@pytest.mark.parametrize("place", ["messages", "input", "tools", "image_data", "system", "prompt"])
def test_nesting_beyond_reason_is_cut_off(nest: Any, place: str) -> None:
    deep: Any = "x"
    for _ in range(2_000):
        deep = nest(deep)
    assert _core.prompt_blocks({"text": "x", place: [deep]}, 16) is not None
