"""Chats as vLLM and transformers render them."""
# ruff: noqa: E501 - templates stay in one piece

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from routecore import RouteError
from routecore.kv_events import PromptTokens
from routecore.requests.conversation import Unknown, conversation, messages_of, names_of, tools_of
from routecore.requests.templates import Template, read_folder
from test_kv_tokens import tokenizer

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
PARTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for p in m['content'] %}[{{ p.text }}]{% endfor %}{% endfor %}"
)
CALLS = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
TOOL = {"type": "function", "function": {"name": "get", "description": "Wetter für Köln"}}


def said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def text(source: str, body: dict[str, Any], **names: Any) -> str:
    template = Template(source)
    messages = messages_of(body)
    assert messages is not None
    turns = conversation(messages, template.content_format)
    return template.render(turns, tools=tools_of(body), **{**names_of(body), **names})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (PLAIN, "string"),
        (PARTS, "openai"),
        ("{% set h = messages[1:] %}{% for m in h %}{% for c in m.content %}{% endfor %}{% endfor %}",
         "openai"),
        ("{% for m in messages | list %}{% for c in m['content'] | list %}{% endfor %}{% endfor %}",
         "openai"),
        ("{% set a = messages %}{% set a = a %}{% for m in a %}{% endfor %}", "string"),
        ("{% for m in messages %}{% for c in m['tool_calls'] %}{% endfor %}{% endfor %}", "string"),
        ("{% for x in other %}{% for c in x.content %}{% endfor %}{% endfor %}", "string"),
    ],
)  # fmt: skip
def test_whether_a_template_takes_parts_is_detected(source: str, expected: str) -> None:
    assert Template(source).content_format == expected


def test_contents_of_every_form() -> None:
    parts = said([{"type": "text", "text": "a"}, "b", {"type": "input_text", "text": "c"}])
    assert text(PLAIN, {"messages": [parts]}) == "<user>a\nb\nc"
    assert text(PARTS, {"messages": [parts, said("d")]}) == "<user>[a][b][c]<user>[d]"
    tool = said([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}], "tool")
    assert text(PARTS, {"messages": [tool]}) == "<tool>[][][]"  # a text even here
    assert text(PLAIN, {"messages": [said(None, "assistant")]}) == "<assistant>"
    billing = said("x-anthropic-billing-header: 1\nkind", "system")
    assert text(PLAIN, {"messages": [billing]}) == "<system>kind"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": "Köln"}', '{"city": "Köln"}'),
        ({"city": 1}, '{"city": 1}'),
        ("", "{}"),
        (None, "{}"),
        ("{", "{}"),
        ("[1]", "{}"),
    ],
)
def test_arguments_of_tool_calls_are_a_mapping(arguments: Any, expected: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get", "arguments": arguments}}
    body = {"messages": [said(None, "assistant", tool_calls=[call])]}
    assert text(CALLS, body) == expected
    assert call["function"]["arguments"] == arguments  # the body is as it was


def test_tool_calls_have_their_fields_in_the_engines_order() -> None:
    call = {"type": "function", "id": "1", "function": {"name": "get", "arguments": "{}"}}
    body = {"messages": [said(None, "assistant", tool_calls=[call])]}
    found = text("{{ messages[0].tool_calls | tojson }}", body)
    assert found == json.dumps(
        [{"id": "1", "function": {"arguments": {}, "name": "get"}, "type": "function"}]
    )


def test_tools_have_all_their_fields_in_order() -> None:
    mixed = {
        "function": {"strict": True, "parameters": {}, "name": "f", "x": 1},
        "type": "function",
    }
    found = text("{{ tools | tojson }}", {"messages": [said("x")], "tools": [TOOL, mixed]})
    assert found == json.dumps([
        {"type": "function", "function": {**TOOL["function"], "parameters": None}},
        {"type": "function", "function": {"name": "f", "description": None, "parameters": {},
                                          "strict": True}},
    ], ensure_ascii=False)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "more", "expected"),
    [
        ("{{ documents[0].text }}", {"documents": [{"text": "d"}]}, "d"),
        ("{{ reasoning_effort }} {{ enable_thinking }}", {"reasoning_effort": "high"}, "high True"),
        ("{{ enable_thinking }}", {"reasoning_effort": "none"}, "False"),
        ("{{ add_generation_prompt }}", {}, "True"),
        ("{{ add_generation_prompt }}", {"add_generation_prompt": False}, "False"),
        ("{{ x }}", {"chat_template_kwargs": {"x": 3}}, "3"),
        ("{{ {'b': 1, 'a': '<'} | tojson(sort_keys=true, indent=2) }}", {}, '{\n  "a": "<",\n  "b": 1\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", {}, "[1,2]"),
        ("{{ 'ü' | tojson(ensure_ascii=true) }}", {}, '"\\u00fc"'),
        ("{% generation %}{% set x = 1 %}y{% endgeneration %}", {}, "y"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", {}, "01"),
        ("{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}", {}, "a1"),
        ("{{ strftime_now('%Y') }}", {}, str(datetime.now().year)),
    ],
)  # fmt: skip
def test_what_templates_may_use(source: str, more: dict[str, Any], expected: str) -> None:
    assert text(source, {"messages": [said("x")], **more}) == expected


@pytest.mark.parametrize(
    ("source", "content", "expected"),
    [
        (PLAIN + "<end>", "so far ", "<user>so far "),
        ("{% for m in messages %}{{ m.content | trim }}</s>{% endfor %}", "so far ", "so far"),
        (PARTS + "<end>", "so far", "<user>[so far"),
    ],
)
def test_a_final_message_is_continued(source: str, content: str, expected: str) -> None:
    body = {"messages": [said(content)], "continue_final_message": True}
    assert text(source, body) == expected
    with pytest.raises(ValueError, match="final message"):
        text(PARTS, {"messages": [said(None)], "continue_final_message": True})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [said("x")], "system": "be kind"}, "<system>be kind<user>x"),
        ({"messages": [said("x")], "system": [{"type": "text", "text": "be kind"}]},
         "<system>be kind<user>x"),
        ({"input": "x", "instructions": "be kind"}, "<system>be kind<user>x"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}, "<user>x"),
    ],
)  # fmt: skip
def test_other_apis_are_chats_too(body: dict[str, Any], expected: str) -> None:
    assert text(PLAIN, body) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [said([{"type": "image_url", "image_url": {"url": "data:image/png,x"}}])]},
        {"messages": [said([{"type": "tool_use", "id": "t", "input": {}}])]},
        {"messages": [said("x")], "system": [{"type": "image"}]},
        {"messages": [said("x")], "chat_template_kwargs": {"chat_template": "x"}},
        {"messages": [said("x")], "chat_template": "other"},
        {"messages": [said("x")], "tools": [{"type": "web_search"}]},
        {"messages": [said("x")], "truncate_prompt_tokens": 5},
        {"messages": ["x"]},
        {"input": "x", "previous_response_id": "r", "max_output_tokens": 5},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "o"}]},
        {"input": "to embed"},
        {"prompt": ["a", "b"]},
        {"prompt": [[1], [2]]},
        {"prompt": "x", "suffix": "y"},
        {"input_ids": [1], "image_data": "x"},
        {"prompt_embeds": "x"},
        {"query": "q", "documents": ["d"]},
        {"inputs": "![](data:image/png;base64,x)"},
    ],
    ids=str,
)
def test_ids_that_only_the_engine_knows_are_not_guessed(body: dict[str, Any]) -> None:
    made = PromptTokens(tokenizer(), PLAIN)
    assert made.ids(body) is None
    assert sum(made.unknown.values()) == 1


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"input_ids": [1, 2]}, [1, 2]),
        ({"prompt": [[1, 2]]}, [1, 2]),
        ({"token_ids": [1, 2]}, [1, 2]),
    ],
)
def test_ids_of_every_api(body: dict[str, Any], ids: list[int]) -> None:
    assert PromptTokens().ids(body) == ids


def test_texts_of_every_api() -> None:
    made = PromptTokens(tokenizer(), PLAIN)
    assert made.ids({"text": "hi"}) == made.ids({"prompt": ["hi"]}) == made.ids({"inputs": "hi"})
    assert made.ids({"prompt": "hi"}) is not None


def test_a_template_in_the_body_is_for_clients_that_are_trusted() -> None:
    body = {"messages": [said("x")], "chat_template": "{{ messages[0].content * 3 }}"}
    made = PromptTokens(tokenizer(), PLAIN, trust_request_chat_template=True)
    assert made.ids(body) == PromptTokens(tokenizer(), "xxx").ids({"messages": [said("x")]})
    assert made.ids({**body, "chat_template": "{% for %}"}) is None
    own = PromptTokens(tokenizer(), PLAIN)
    assert own.ids({**body, "chat_template": PLAIN}) == own.ids({"messages": [said("x")]})


def test_a_failing_template_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    made = PromptTokens(tokenizer(), "{{ nothing.at.all() }}")
    for _ in range(3):
        assert made.ids({"messages": [said("x")]}) is None
    assert caplog.text.count("UndefinedError: 'nothing' is undefined") == 1
    assert list(made.unknown.values()) == [3]
    for n in range(100):  # nobody fills it with words of his own
        made.ids({"messages": [said([{"type": f"kind {n}"}])]})
    assert len(made.unknown) <= 33


def test_an_image_never_meets_the_tokenizer() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2_500_000}}
    made = PromptTokens(tokenizer(), PLAIN)
    made._encode = None  # type: ignore[assignment,method-assign]
    assert made.ids({"messages": [said([image])]}) is None


def test_templates_beside_the_tokenizer(tmp_path: Path) -> None:
    config = {
        "chat_template": [
            {"name": "default", "template": "a"},
            {"name": "tool_use", "template": "t"},
        ],
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    assert read_folder(tmp_path) == ({"default": "a", "tool_use": "t"}, names)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "b"}))
    assert read_folder(tmp_path)[0] == {"default": "b"}
    (tmp_path / "chat_template.jinja").write_text("c")
    assert read_folder(tmp_path)[0] == {"default": "c"}
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("tools!")
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    made = PromptTokens.from_model(tmp_path)
    with_tools = made.ids({"messages": [said("x")], "tools": [TOOL]})
    assert len(with_tools or ()) == len("tools!")
    assert len(made.ids({"messages": [said("x")]}) or ()) == 1
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(RouteError, match="chat template in"):
        read_folder(tmp_path)


def test_refusals_of_a_conversation_name_no_content() -> None:
    with pytest.raises(Unknown) as raised:
        conversation([said([{"type": "x" * 1000}])], "string")
    assert len(str(raised.value)) < 100


CORPUS = [
    *(PLAIN, PARTS, CALLS),
    "{%- for m in messages %}\n  {{- m.content }}\n  {% if loop.last %}!{% endif %}\n{%- endfor %}",
    "{{ messages | tojson(indent=4) }}{{ tools | tojson }}{{ '<' | tojson }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{% generation %}{{ f(messages[0].content) }}{% endgeneration %}",
    "{{ dict(a=1) | tojson }}{% if tools is defined and tools %}T{% else %}F{% endif %}",
]  # fmt: skip


@pytest.mark.parametrize("source", CORPUS)
def test_transformers_renders_the_same(source: str) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    body = {
        "messages": [said("a <b> ü"), said("so", "assistant"), said("c")],
        "tools": [{**TOOL, "function": {**TOOL["function"], "parameters": None}}],
        "add_generation_prompt": False,
    }
    form = Template(source).content_format
    turns = conversation(body["messages"], form)
    expected = theirs._compile_jinja_template(source).render(
        messages=turns, tools=body["tools"], documents=None, add_generation_prompt=False
    )
    assert text(source, body) == expected
