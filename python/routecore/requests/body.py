"""The body of a request, and what of it is part of the prompt."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from routecore import _core

PROMPTS = (
    "messages",
    "prompt",
    "input",
    "prompt_token_ids",
    "input_ids",
    "token_ids",
    "text",
    "inputs",
    "query",
    "queries",
    "text_1",
    "prompt_embeds",
    "input_embeds",
    "image_data",
    "images",
    "audio_data",
    "video_data",
)
"""Where bodies of the known APIs have their prompt, or media that are all of it."""

BESIDE = (
    "model",
    "lora_name",
    "lora_path",
    "adapter_id",
    "adapter",
    "cache_salt",
    "extra_key",
    "system",
    "instructions",
    "tools",
    "functions",
    "tool_choice",
    "documents",
    "text_2",
    "texts",
    "passages",
    "previous_response_id",
    "conversation",
    "chat_template",
    "chat_template_kwargs",
    "reasoning_effort",
    "reasoning",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "truncate_prompt_tokens",
    "mm_processor_kwargs",
    "n",
    "best_of",
    "num_return_sequences",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "num_predict",
    "sampling_params",
    "parameters",
    "options",
)
"""What else is part of the prompt or separates caches, and what it may generate."""


def body_of(request: Any, request_json: Any = None) -> Any:
    """The parsed body: the host's, or the request's cached bytes; None if neither is there."""
    if request_json is not None:
        return request_json
    cached = getattr(request, "_body", None)
    return parsed(cached) if isinstance(cached, (bytes, bytearray)) else None


def parsed(content: "bytes | bytearray | memoryview") -> Any:
    """A body out of its bytes; None if they are no JSON."""
    found = _core.json(content) if type(content) is bytes else None
    if found is not None:
        return found
    try:  # what is spelt in a way that readers of JSON differ about, or is no JSON
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        return None
    try:
        return json.loads(bytes(content))  # takes the lone surrogates that msgspec refuses
    except (ValueError, RecursionError):
        return None


def has_prompt(body: Any) -> bool:
    """Whether a body has anything that an engine would prefill."""
    return isinstance(body, dict) and any(body.get(name) not in (None, "", []) for name in PROMPTS)


def prompt_fields(
    get: Callable[[str], Any], also: Iterable[str] = (), plain: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """The body that a router reads, of a host that has the fields one by one.

    Args:
        get: A field by name, None where the request has none.
        also: Further names to keep, such as a session's.
        plain: Turns the host's own objects into plain values.

    Returns:
        Fields that are part of the prompt, or separate caches; empty without a prompt.
    """
    body: dict[str, Any] = {}
    for name in PROMPTS:
        value = get(name)
        if value is not None and not callable(value):
            body[name] = value if plain is None else plain(value)
    if not body:
        return body
    for name in (*BESIDE, *also):
        value = get(name)
        if value is not None and not callable(value):
            body[name] = value if plain is None else plain(value)
    return body
