"""The object that the host calls before and after each request (`--callbacks`)."""

from collections.abc import Callable
from typing import Any

import msgspec

from routecore.integrations.production_stack.life import current, follow

_TAIL = 4096  # bytes at the end of a stream that can hold its usage


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)


class Callbacks:
    """Follows each request to its end, and reads what engines report of their cache.

    Args:
        check: Told the application before each request.
    """

    def __init__(self, check: Callable[[Any], None]) -> None:
        self._check = check

    def pre_request(self, request: Any, request_body: Any, request_json: Any) -> None:
        """Before the host chooses; never answers in its place."""
        life = follow(request)
        life.body, life.shows_usage = request_json, True
        self._check(request.app)

    async def post_request(self, request: Any, response_content: bytes | bytearray) -> None:
        """After a request that went well, whose answer the host kept."""
        life = current()
        usage = usage_of(response_content)
        if usage is not None:
            details = usage.prompt_tokens_details
            cached = None if details is None else details.cached_tokens
            decision = getattr(request.app.state.router, "decision", None)
            if decision is not None and cached is not None:
                decision.telemetry.used(cached)
            if life is not None and life.served is not None:
                monitor, url, request_id, _ = life.served
                monitor.on_usage(
                    url, request_id, usage.prompt_tokens, cached, usage.completion_tokens
                )
        if life is not None:
            life.count_served()


def usage_of(content: bytes | bytearray) -> _Usage | None:
    """The usage in an answer, or in the end of a stream of them; None if there is none."""
    body = bytes(content[-_TAIL:]) if content.startswith(b"data:") else bytes(content)
    lines = reversed(body.split(b"\n")) if content.startswith(b"data:") else iter((body,))
    for line in lines:
        text = line.removeprefix(b"data:").strip()
        if b'"usage"' not in text:
            continue
        try:
            found = _answer.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if found.usage is not None:
            return found.usage
    return None
