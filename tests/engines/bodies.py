"""Request bodies of every shape that an engine renders, for comparing token ids."""

from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter in einer Stadt, z. B. Köln <heute> & 'morgen'",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
PLAIN_TOOL = {
    "type": "function",
    "function": {"name": "now", "description": "the time", "parameters": {"type": "object"}},
}


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def system(content: Any) -> Body:
    return {"role": "system", "content": content}


def assistant(content: Any, **more: Any) -> Body:
    return {"role": "assistant", "content": content, **more}


def tool(content: Any, call: str = "call12345") -> Body:
    return {"role": "tool", "tool_call_id": call, "content": content}


def calls(*arguments: str, content: Any = None) -> Body:
    made = [
        {
            "id": f"call1234{5 + at}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": given},
        }
        for at, given in enumerate(arguments)
    ]
    return assistant(content, tool_calls=made)


def text(words: str) -> Body:
    return {"type": "text", "text": words}


TEXTS = [
    "hello",
    "",
    "  two spaces, and a tail  \n",
    "Straße, 東京, Привет, مرحبا, 🙂👩‍👩‍👧",
    "def f(x: int) -> int:\n    return x + 1\n",
    "line one\nline two\r\nline three\ttab",
    "quotes \"double\" and 'single', back\\slash, <tag> & {braces} {{ jinja }} {% raw %}",
    "<|im_end|> <|eot_id|> [INST] </s> in the text",
    "word " * 120,
    "3.14159 -42 1e10 0x1F 007",
    "e\u0301 and \u00e9, \u200b zero width, \ufeff mark",
]
CONVERSATIONS: list[list[Body]] = [
    *([user(words)] for words in TEXTS),
    [system("You are terse."), user("hello")],
    [system(""), user("hello")],
    [system("  padded  "), user("a"), assistant(" b "), user("c")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("a"), assistant("b"), user("c"), assistant("d")],
    [user([text("one part")])],
    [user([text("two"), text("parts")])],
    [user([text("a"), text(""), text("b\n")]), assistant([text("ok")]), user("c")],
    [system([text("as a part")]), user("hello")],
    [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c")],
    [user("a"), assistant("b", reasoning_content="because"), user("c")],
    [user("weather?"), calls('{"city": "SF"}'), tool("cold"), user("thanks")],
    [user("weather?"), calls('{"city": "Köln", "unit": "celsius"}'), tool('{"degrees": 7}')],
    [user("weather?"), calls('{"city": "SF"}', content=""), tool("cold")],
    [user("weather?"), calls('{"city": "SF"}', content="let me see"), tool("cold")],
    [user("weather?"), calls("{}"), tool([text("cold"), text("dry")])],
    [
        user("both?"),
        calls('{"city": "A", "days": [1, 2.5, null, true]}', '{"city": "B"}'),
        tool("x"),
        tool("y", "call12346"),
    ],
    [user("a"), assistant(None), user("b")],
    [user("a"), user("b")],
    [assistant("I begin"), user("a")],
    [user("named")],
]
CONVERSATIONS[-1][0]["name"] = "alice"

OPTIONS: list[Body] = [
    {"add_generation_prompt": False},
    {"add_generation_prompt": False, "continue_final_message": True},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"chat_template_kwargs": {"enable_thinking": True, "date_string": "1 Jan 2026"}},
    {"tools": [PLAIN_TOOL]},
    {"tools": [WEATHER, PLAIN_TOOL], "tool_choice": "none"},
    {"tools": []},
    {"chat_template_kwargs": {"documents": [{"title": "T", "text": "some text"}]}},
    {"documents": [{"title": "T", "text": "some text"}]},
    {"reasoning_effort": "low"},
    {"add_special_tokens": True},
]
# Which conversations the options are tried on: short ones, with a part, a system text, an answer.
TRIED = [0, 11, 15, 17, 20]


def chats() -> Iterator[Body]:
    """Chat bodies, each of which is tried with every template."""
    for messages in CONVERSATIONS:
        yield {"messages": messages}
    for options in OPTIONS:
        for at in TRIED:
            yield {"messages": CONVERSATIONS[at], **options}


def completions() -> Iterator[Body]:
    """Completion bodies: texts, ids, batches of one."""
    for words in TEXTS:
        if words:
            yield {"prompt": words}
    yield {"prompt": ["a batch of one"]}
    yield {"prompt": list(range(100, 140))}
    yield {"prompt": [list(range(100, 140))]}
    yield {"prompt": "no bos", "add_special_tokens": False}
