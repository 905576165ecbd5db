"""Bodies of every API, as prompts: what shares, what is kept apart, and how large it is."""

import base64
import random
import struct
from typing import Any

import pytest
from routecore import _core

LONG = "You are the assistant of a shop. Answer politely. " * 80
IDS = list(range(500, 1524))
draw = random.Random(5)


def read(body: Any) -> tuple[list[bytes], int]:
    """The blocks of a prompt, and its size in tokens."""
    found = _core.prompt_blocks(body, 16)
    assert found is not None
    chain, tokens, *_ = found
    return [chain[i : i + 8] for i in range(0, len(chain), 8)], tokens


def shared(first: Any, second: Any) -> int:
    """Tokens of `second` that `first` begins with too."""
    one, two = read(first)[0], read(second)[0]
    return 16 * next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
        min(len(one), len(two)),
    )


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **more}


def said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def part(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


SYSTEM = said(LONG, "system")
HINT = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chat(said(LONG)), chat(said([part(LONG)]))),
        (chat(said(LONG)), chat(said([LONG]))),
        (chat(said(LONG)), chat(said([{"type": "input_text", "text": LONG}]))),
        (chat(said("a\n" + LONG)), chat(said([part("a"), part(LONG)]))),
        (chat(said(LONG)), chat(said([part(LONG, **HINT)]))),
        (chat(said(LONG)), chat({"content": LONG, "role": "user"})),
        (chat(said(None, "assistant"), said(LONG)), chat({"role": "assistant"}, said(LONG))),
        (
            chat(said(LONG), tools=[{"type": "function", "function": {"name": "f", "x": 1}}]),
            chat(said(LONG), tools=[{"function": {"x": 1, "name": "f"}, "type": "function"}]),
        ),
        (chat(said(LONG)), chat(said(LONG, name=None, tool_calls=[], refusal=None))),
        (chat(said(LONG)), chat(said(LONG, id="msg_1", status="completed", type="message"))),
        (chat(SYSTEM, said("x")), chat(said("x"), system=LONG)),
        (chat(SYSTEM, said("x")), chat(said("x"), system=[part(LONG, **HINT)])),
        (chat(SYSTEM, said("x")), {"model": "m", "input": "x", "instructions": LONG}),
        (chat(said(LONG)), {"model": "m", "input": LONG}),
        (chat(said(LONG)), {"model": "m", "input": [said(LONG)]}),
        (chat(said(LONG)), {"model": "m", "input": [LONG]}),
        (chat(said(LONG)), {"model": "m", "input": LONG, "text": {"format": {"type": "text"}}}),
        (chat(said(LONG)), [chat(said(LONG))["messages"]]),
        ({"prompt": LONG}, {"prompt": [LONG]}),
        ({"prompt": LONG}, {"text": LONG}),
        ({"prompt": LONG}, {"inputs": LONG}),
        ({"prompt": IDS}, {"prompt": [IDS]}),
        ({"prompt": IDS}, {"input_ids": IDS}),
        ({"prompt": IDS}, {"prompt_token_ids": IDS, "messages": [said("x")]}),
        ({"prompt": IDS}, {"input_ids": [IDS], "sampling_params": {"max_new_tokens": 5}}),
        (
            chat(SYSTEM),
            chat(said(f"x-anthropic-billing-header: cch={draw.random()}\n{LONG}", "system")),
        ),
        (
            chat(said("x"), system=[part("x-anthropic-billing-header: 1"), part(LONG)]),
            chat(said("x"), system=[part("x-anthropic-billing-header: 2"), part(LONG)]),
        ),
        (
            chat(said([{"type": "document", "source": {"type": "text", "data": LONG}}])),
            chat(said(LONG)),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_the_same_words_in_another_dress_are_the_same_prompt(one: Any, other: Any) -> None:
    if isinstance(other, list):
        other = {"model": "m", "messages": other}
    assert read(one) == read(other)


@pytest.mark.parametrize(
    "other",
    [
        {"cache_salt": "a"},
        {"cache_salt": 7},
        {"cache_salt": ["a"]},
        {"cache_salt": {"t": "a"}},
        {"cache_salt": True},
        {"cache_salt": LONG + "a"},
        {"cache_salt": LONG + "b"},
        {"model": "a"},
        {"lora_name": "a"},
        {"lora_path": "b"},
        {"lora_path": "c", "lora_name": "c"},
        {"parameters": {"adapter_id": "d"}},
        {"extra_key": "a"},
        {"system": "Only for a."},
        {"instructions": "Only for a."},
        {"chat_template": "{{ messages }}"},
        {"chat_template_kwargs": {"persona": "a"}},
        {"reasoning_effort": "high"},
        {"previous_response_id": "resp_1"},
        {"previous_response_id": "resp_2"},
        {"conversation": {"id": "conv_1"}},
        {"tools": [{"type": "function", "function": {"name": "a"}}]},
        {"functions": [{"name": "a"}]},
        {"documents": [{"text": "a"}]},
    ],
    ids=str,
)
def test_tenants_and_heads_are_kept_apart(other: dict[str, Any]) -> None:
    everyone = {"model": "m", "messages": [said(LONG)]}
    assert shared(everyone, {**everyone, **other}) == 0
    assert shared({**everyone, **other}, {**everyone, **other}) > 900
    assert not set(read(everyone)[0]) & set(read({**everyone, **other})[0])


def test_salts_of_all_kinds_differ_from_each_other() -> None:
    salts = ["1", 1, 1.5, True, False, ["1"], [1], {"1": 1}, {}, [], "", "a", LONG, LONG + "x"]
    heads = {read({"messages": [said(LONG)], "cache_salt": salt})[0][0] for salt in salts}
    assert len(heads) == len(salts)


def test_what_is_null_is_not_there() -> None:
    everyone = chat(said(LONG))
    nulls = {"cache_salt": None, "lora_name": None, "tools": None, "system": None, "prompt": None}
    assert read(everyone) == read({**everyone, **nulls})


def test_switches_of_a_template_leave_the_head() -> None:
    on, off = (chat(said(LONG), chat_template_kwargs={"enable_thinking": v}) for v in (True, False))
    assert shared(on, off) > 900


def test_a_conversation_that_grows_keeps_its_blocks() -> None:
    turns = [SYSTEM, said("one"), said("yes", "assistant", reasoning_content=None), said("two")]
    assert shared(chat(*turns[:2]), chat(*turns)) >= 990


def png(width: int, height: int, size: int, noise: random.Random = draw) -> str:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    data = base64.b64encode(head + noise.randbytes(size)).decode()
    return f"data:image/png;base64,{data}"


ONE = png(560, 560, 300_000)
BARE = ONE.partition(",")[2]


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": ONE}},
        {"type": "image_url", "image_url": {"url": ONE, "detail": "high"}},
        {"type": "image_url", "image_url": ONE},
        {"image_url": ONE},
        {"type": "input_image", "image_url": ONE},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": BARE},
        },
    ],
    ids=lambda image: str(image)[:40],
)
def test_an_image_counts_by_its_pixels_in_every_dress(image: dict[str, Any]) -> None:
    plain = chat(said([{"type": "image_url", "image_url": {"url": ONE}}, part(LONG)]))
    assert read(chat(said([image, part(LONG)]))) == read(plain)
    text = read(chat(said(LONG)))[1]
    assert read(plain)[1] - text == pytest.approx(400, abs=2)


def test_different_images_never_share() -> None:
    other = ONE[:-8] + "AAAAAAA="
    assert shared(*(chat(said([{"type": "image_url", "image_url": {"url": url}}, part(LONG)]))
                    for url in (ONE, other))) < 16  # fmt: skip
    by_url = [f"http://x/{n}.png" for n in range(2)]
    assert shared(*(chat(said([{"type": "image_url", "image_url": {"url": url}}, part(LONG)]))
                    for url in by_url)) < 16  # fmt: skip


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        (chat(said([{"type": "image_url", "image_url": {"url": "http://x/1.png"}}])), 500, 3000),
        (chat(said([{"type": "image_url", "image_url": None, "uuid": "a"}])), 500, 3000),
        (chat(said([{"type": "input_audio", "input_audio": {"data": "A" * 640_000,
                                                             "format": "mp3"}}])), 500, 1000),
        (chat(said([{"type": "audio_url", "audio_url": {"url": "http://x/a.wav"}}])), 300, 3000),
        (chat(said([{"type": "video_url", "video_url": {"url": "http://x/a.mp4"}}])), 1000, 9000),
        (chat(said([{"type": "file", "file": {"file_data": "data:application/pdf;base64,"
                                              + "A" * 400_000}}])), 500, 9000),
        (chat(said([{"type": "input_file", "file_id": "file-1"}])), 500, 9000),
        (chat(said([{"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {"type": "url", "url": "http://x"}}]}])), 500, 3000),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": [
            {"type": "input_image", "image_url": ONE}]}]}, 400, 500),
        ({"text": "What is it?", "image_data": ONE}, 400, 500),
        ({"text": "What is it?", "image_data": [ONE, BARE]}, 800, 900),
        ({"input_ids": [1, 2, 3], "image_data": ONE}, 400, 500),
        ({"inputs": f"![]({ONE})What is it?"}, 400, 500),
        ({"messages": [said("what", images=[BARE])]}, 400, 500),
        (chat(said("x"), tools=[{"icon": ONE}]), 16, 9000),
        ({"prompt_embeds": "A" * 1_000_000}, 50, 500),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_media_count_as_engines_count_them(body: Any, low: int, high: int) -> None:
    assert low <= read(body)[1] <= high


def test_a_query_is_read_beside_every_document() -> None:
    documents = [f"{n} " + "word " * 100 for n in range(10)]
    for body in (
        {"query": "q" * 400, "documents": documents},
        {"text_1": "q" * 400, "text_2": documents},
        {"query": "q" * 400, "texts": documents},
    ):
        assert read(body)[1] == pytest.approx(10 * (100 + 126), rel=0.02)


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": LONG}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": LONG}]},
        {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": LONG}]}]},
        chat(said(None, "assistant", tool_calls=[{"function": {"arguments": LONG}}])),
        chat(said([{"type": "tool_use", "id": "t", "name": "f", "input": {"q": LONG}}])),
        chat(said([{"type": "tool_result", "tool_use_id": "t", "content": LONG}])),
        chat(said([{"type": "thinking", "thinking": LONG}], "assistant")),
        {"prompt": {"prompt": LONG}},
        {"input": [["x", LONG]]},
        {"inputs": [LONG]},
        {"messages": [[said(LONG)], [said("x")]]},
    ],
    ids=lambda body: str(body)[:60],
)
def test_text_counts_wherever_it_stands(body: Any) -> None:
    assert read(body)[1] >= 1000


@pytest.mark.parametrize(
    "body",
    [
        lambda many, last: chat(*[said("hello there")] * many, said(last)),
        lambda many, last: chat(said([part("hello there")] * many + [part(last)])),
        lambda many, last: chat(*[{}] * many, said(last)),
        lambda many, last: {"prompt": ["hello there"] * many + [last]},
        lambda many, last: {"input": ["hello there"] * many + [last]},
        lambda many, last: {"query": "q", "documents": ["hello there"] * many + [last]},
        lambda many, last: chat(said("x"), tools=[{"type": "function"}] * many + [{"name": last}]),
        lambda many, last: {"text": "x", "image_data": ["aaaa"] * many + [last]},
        lambda many, last: chat(said("x", more=[[]] * many + [last])),
        lambda many, last: {"prompt": [7] * 16 * many + [len(last)] * 16},
    ],
)
def test_of_a_body_with_countless_parts_the_first_are_read(body: Any) -> None:
    assert read(body(1_000, "a"))[0] != read(body(1_000, LONG * 9))[0]
    blocks, size = read(body(100_000, "a"))
    assert (blocks, size) == read(body(100_000, LONG * 9))
    assert len(blocks) <= 65_536


def test_what_is_not_read_counts_by_the_mean_of_what_is() -> None:
    few, many = (read(chat(*[said("hello there")] * n))[1] for n in (50_000, 1_000_000))
    assert many == pytest.approx(20 * few, rel=0.01)
    assert read({"prompt": [7] * 3_000_000})[1] == 3_000_000
    assert read({"prompt": "x" * 50_000_000})[1] == pytest.approx(12_500_000, rel=0.01)


@pytest.mark.parametrize("long", [said, lambda text: said([part(text)])])
def test_a_long_text_is_read_whole_whatever_its_letters(long: Any) -> None:
    text = "".join(map(chr, range(0x100, 0x8000))) * 6  # pieces are cut in the middle of blocks
    size = len(text.encode())
    blocks, tokens = read(chat(long(text)))
    assert abs(len(blocks) - size // 64) <= 1
    assert tokens == pytest.approx(size / 4, abs=16)
    at = 150_000
    other = text[:at] + "x" + text[at + 1 :]
    same = len(text[:at].encode()) // 4
    assert same - 32 <= shared(chat(long(text)), chat(long(other))) <= same + 16
    assert read(chat(long("\ud800" + text)))[0] != blocks


@pytest.mark.parametrize(
    "body",
    [{}, {"model": "m"}, {"tools": [1]}, {"text": {"format": 1}}, {"messages": None}, [], "x"],
    ids=str,
)
def test_a_body_without_a_prompt_has_none(body: Any) -> None:
    assert _core.prompt_blocks(body, 16) is None
