"""Token counts of answers, under the names of every API."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from routecore.requests import header, usage_in, usage_of

RESPONSES = {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 8}}
CHAT = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (CHAT, (10, 8, 2)),
        (RESPONSES, (10, 8, 2)),
        ({**CHAT, "prompt_tokens_details": None}, (10, None, 2)),
        ({"input_tokens": 10, "output_tokens": 2}, (10, None, 2)),
        ({"input_tokens": 2, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 1,
          "output_tokens": 2}, (10, 7, 2)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "cache_read_input_tokens": 7}, (10, 7, 2)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 8}, (10, 8, 2)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 8, "completion_tokens": 2}, (10, 8, 2)),
        ({"prompt_eval_count": 10, "eval_count": 2}, (10, None, 2)),
        ({"prompt_tokens": -1, "completion_tokens": "2", "cached_tokens": True}, None),
        ({"prompt_tokens": 10.0, "completion_tokens": 1e300, "x": None}, (10, None, None)),
        ({}, None),
        (None, None),
    ],
    ids=str,
)  # fmt: skip
def test_names_of_counts(counts: Any, expected: Any) -> None:
    assert usage_in(counts) == expected
    if counts is not None:
        objects = {k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in counts.items()}
        assert usage_in(SimpleNamespace(**objects)) == expected


def events(*data: dict[str, Any], named: bool = True) -> bytes:
    head = "event: {}\n" if named else ""
    lines = (f"{head.format(d.get('type'))}data: {json.dumps(d)}\n\n" for d in data)
    return "".join(lines).encode()


STREAM = [{"type": "response.created", "response": {"id": "r", "usage": None}},
          {"type": "response.completed", "response": {"id": "r", "usage": RESPONSES}}]  # fmt: skip
ANTHROPIC = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"text": "x" * 40_000}},
    {"type": "message_delta", "usage": {"output_tokens": 2}},
]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps({"id": "x", "usage": CHAT}).encode(), (10, 8, 2)),
        (json.dumps({"usage": RESPONSES}, indent=1).encode(), (10, 8, 2)),
        (events({"choices": []}, {"usage": CHAT}, named=False) + b"data: [DONE]\n\n", (10, 8, 2)),
        (b": ping\n\n" + events({"usage": CHAT}, named=False), (10, 8, 2)),
        (events(*STREAM), (10, 8, 2)),
        (events(*ANTHROPIC), (10, None, 2)),
        (b'{"text": "x", "meta_info": {"prompt_tokens": 10, "cached_tokens": 8, '
         b'"completion_tokens": 2}}', (10, 8, 2)),
        (b'[{"meta_info": {"prompt_tokens": 10}}, {"meta_info": {}}]', (10, None, None)),
        (b'{"response": "x", "prompt_eval_count": 10, "eval_count": 2}', (10, None, 2)),
        (b'{"response": "x"}\n{"done": true, "prompt_eval_count": 10, "eval_count": 2}\n',
         (10, None, 2)),
        (b'{"usage": "tokens"}', None),
        (b'{"usage": {"prompt_tokens"', None),
        (b"\xff tokens", None),
        (b"[] tokens", None),
        (b"", None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_answers_and_streams(content: bytes, expected: Any) -> None:
    assert usage_of(content) == expected
    assert usage_of(bytearray(content.replace(b"\n", b"\r\n"))) == expected


@pytest.mark.parametrize("name", ["x-user-id", "X-User-ID", "x_user_id", "X_USER_ID"])
@pytest.mark.parametrize("asked", ["x-user-id", "x_user_id", "X-User-Id"])
def test_headers_match_with_either_sign(name: str, asked: str) -> None:
    assert header({name: "u"}, asked) == "u"
    assert header({"other": "u"}, asked) is None
    assert header(None, asked) is header(7, asked) is None
