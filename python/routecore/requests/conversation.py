"""Bodies of chats → what an engine hands to its chat template, as vLLM does it."""

import json
from collections.abc import Iterable
from typing import Any

from routecore.requests.templates import ContentFormat

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal",
          "thinking": "thinking"}  # fmt: skip
_BILLING = "x-anthropic-billing-header"


class Unknown(Exception):
    """The ids of a body cannot be known without the engine; says why."""


def given_ids(body: dict[str, Any]) -> list[int] | None:
    """Token ids that a body brings; None if it brings none.

    Raises:
        Unknown: They are several prompts, or stand beside media or embeddings.
    """
    for name in ("prompt_token_ids", "input_ids", "token_ids", "prompt"):
        ids = body.get(name)
        if not isinstance(ids, list) or not ids:
            continue
        if isinstance(ids[0], list) and ids[0] and isinstance(ids[0][0], int):
            if len(ids) > 1:
                raise Unknown("several prompts in one request")
            ids = ids[0]
        if isinstance(ids[0], int):
            _plain(body)
            return ids
    return None


def given_text(body: dict[str, Any]) -> str | None:
    """The text that a body is to complete; None for a body of another kind.

    Raises:
        Unknown: It is several texts, or stands beside what changes the prompt.
    """
    if isinstance(body.get("messages"), list):
        return None
    for name in ("prompt", "text", "inputs"):
        text = body.get(name)
        if isinstance(text, list) and text and isinstance(text[0], str):
            if len(text) > 1:
                raise Unknown("several prompts in one request")
            text = text[0]
        if isinstance(text, str):
            _plain(body)
            if name == "inputs" and "](data:" in text:
                raise Unknown("images in a text")
            return text
    return None


def _plain(body: dict[str, Any]) -> None:
    """Raises `Unknown` for a body that changes a prompt of text or ids."""
    for name in _CHANGES:
        if body.get(name) not in (None, [], {}):
            raise Unknown(f"a prompt that {name} changes")


_CHANGES = ("prompt_embeds", "input_embeds", "image_data", "audio_data", "video_data", "images",
            "multi_modal_data", "suffix", "truncate_prompt_tokens")  # fmt: skip


def messages_of(body: dict[str, Any]) -> list[Any] | None:
    """The conversation of a body, of the chat, Responses or Anthropic API; None for no chat.

    Raises:
        Unknown: It has parts that engines do not render alike.
    """
    _plain(body)
    messages = body.get("messages")
    system, instructions = body.get("system"), body.get("instructions")
    if isinstance(messages, list):
        if system is None:
            return messages
        return [{"role": "system", "content": _joined(system)}, *messages]
    asked = body.get("input")
    responses = any(body.get(name) is not None for name in ("instructions", "max_output_tokens"))
    if asked is None or not (responses or (isinstance(asked, list) and _is_item(asked[:1]))):
        return None
    if body.get("previous_response_id") or body.get("conversation") or body.get("prompt"):
        raise Unknown("what a response continues is known to its engine only")
    head = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(asked, str):
        return [*head, {"role": "user", "content": asked}]
    if not isinstance(asked, list):
        raise Unknown("input is neither text nor items")
    for item in asked:
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            raise Unknown("items of a response that are no messages")
    return [*head, *asked]


def conversation(messages: Iterable[Any], form: ContentFormat) -> list[dict[str, Any]]:
    """The messages as a template gets them.

    Content is joined by newlines where the template takes text, and given as parts where it
    goes over them; null is empty; arguments of tool calls are parsed.

    Raises:
        Unknown: For images and other parts that are not text.
    """
    return [_message(message, form) for message in messages]


def tools_of(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The tools as a template gets them: each with all of its fields, in their order.

    Raises:
        Unknown: For tools of another form.
    """
    tools = body.get("tools")
    if tools is None:
        return None
    made = []
    for tool in tools if isinstance(tools, list) else [tools]:
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            raise Unknown("tools that are no functions")
        function = tool.get("function")
        if not isinstance(function, dict):
            raise Unknown("tools that are no functions")
        fields = {name: function.get(name) for name in ("name", "description", "parameters")}
        for name in ("strict", "defer_loading"):
            value = function.get(name)
            if value is None and name == "defer_loading":
                value = tool.get(name)
            if value is not None:
                fields[name] = value
        made.append({"type": "function", "function": fields})
    return made


def names_of(body: dict[str, Any]) -> dict[str, Any]:
    """What else a template may read.

    Raises:
        Unknown: For names that engines refuse.
    """
    given = body.get("chat_template_kwargs")
    names = dict(given) if isinstance(given, dict) else {}
    if names.keys() & {"messages", "tools", "chat_template", "tokenize"}:
        raise Unknown("chat_template_kwargs that engines refuse")
    effort = body.get("reasoning_effort")
    if effort is not None:
        names.setdefault("enable_thinking", effort != "none")
        names["reasoning_effort"] = effort
    for name, default in (("documents", None), ("add_generation_prompt", True),
                          ("continue_final_message", False)):  # fmt: skip
        value = body.get(name)
        if value is not None:
            names[name] = value
        else:
            names.setdefault(name, default)
    return names


def _message(message: Any, form: ContentFormat) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unknown("a message without a role")
    role = message["role"]
    parts = _parts(message.get("content"), role == "system")
    content: Any = parts
    if form == "string":
        content = "\n".join(part["text"] for part in parts if part["text"])
    elif role == "tool":
        content = "\n".join(part["text"] for part in parts)
    made: dict[str, Any] = {"role": role, "content": content}
    if role == "assistant":
        calls = message.get("tool_calls")
        if calls:
            made["tool_calls"] = [_call(call) for call in calls]
        reasoning = message.get("reasoning", message.get("reasoning_content"))
        if reasoning is not None:
            made["reasoning"] = made["reasoning_content"] = reasoning
    elif role == "tool" and "tool_call_id" in message:
        made["tool_call_id"] = message["tool_call_id"]
    elif role == "developer":
        made["tools"] = message.get("tools")
    for name in ("name", "task"):
        if isinstance(message.get(name), str):
            made[name] = message[name]
    return made


def _parts(content: Any, system: bool) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, list):
        raise Unknown("a content that is neither text nor parts")
    made = []
    for part in content:
        text, more = part, {}
        if isinstance(part, dict):
            kind = part.get("type")
            if kind not in _TEXTS or part.keys() & {"image_url", "audio_url", "video_url"}:
                raise Unknown(f"parts of type {str(kind)[:40]!r}")
            text = part.get(_TEXTS[kind])
            more = {k: v for k, v in part.items() if k not in _KNOWN}
        if text is None:
            continue
        if not isinstance(text, str):
            raise Unknown("a text part without text")
        if system and text.startswith(_BILLING):
            text = text.partition("\n")[2]
            if not text:
                continue
        made.append({"type": "text", "text": text, **more})
    return made


# What of a part is not handed on as it is.
_KNOWN = {"type", "text", "refusal", "thinking", "detail", "uuid"}


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise Unknown("tool calls that are no functions")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments:
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    # Templates take a mapping: what is none is an empty one.
    parsed = arguments if isinstance(arguments, dict) else {}
    # In the order of the engine's own types, which templates that print a call show.
    function = {"arguments": parsed, "name": function.get("name"), **function}
    function["arguments"] = parsed
    return {"id": call.get("id"), "function": function, "type": "function"}


def _joined(system: Any) -> str:
    if isinstance(system, str):
        return system
    texts = []
    for block in system if isinstance(system, list) else [None]:
        text = block.get("text") if isinstance(block, dict) else block
        if not isinstance(text, str):
            raise Unknown("system blocks that are no text")
        if not text.startswith(_BILLING):
            texts.append(text)
    return "".join(texts)


def _is_item(items: list[Any]) -> bool:
    return bool(items) and isinstance(items[0], dict)
