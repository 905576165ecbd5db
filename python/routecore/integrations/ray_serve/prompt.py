"""What a Serve call says of its prompt: Serve LLM's request objects, parsed bodies, plain text."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from routecore.requests.body import prompt_fields

_MAX_DEPTH = 8


def body_of(
    args: list[Any], kwargs: Mapping[str, Any], session_key: str | None, model: str
) -> dict[str, Any] | None:
    """The body that a router reads, or None for a call without a prompt.

    Args:
        args: The call's positional arguments; the first with a prompt counts, as Serve has it.
        kwargs: Its named ones, looked at after them.
        session_key: Kept beside the prompt if the request has it.
        model: The multiplexed model, for requests that name none.
    """
    also = () if session_key is None else (session_key,)
    for arg in (*args, *kwargs.values(), kwargs):
        body = prompt_fields(partial(_get, arg), also, plain)
        if body:
            return {**body, "model": body.get("model") or model}
    text = next((arg for arg in args if isinstance(arg, str)), None)
    return None if text is None else {"prompt": text, "model": model}


def plain(value: Any, depth: int = 0) -> Any:
    """Lists and dicts of plain values; request objects become dicts of their fields.

    Iterators stay as they are: reading them would take them from the engine.
    """
    if value is None or isinstance(value, (str, int, float)) or depth > _MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        if not value or isinstance(value[0], (str, int, dict)):
            return value  # texts, token ids or parsed messages: not worth a copy
        return [plain(item, depth + 1) for item in value]
    fields = getattr(value, "__dict__", None)
    if not isinstance(fields, dict):
        return value
    return {name: plain(field, depth + 1) for name, field in fields.items() if field is not None}


def _get(arg: Any, name: str) -> Any:
    return arg.get(name) if isinstance(arg, Mapping) else getattr(arg, name, None)
