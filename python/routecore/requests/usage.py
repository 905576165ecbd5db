"""What an answer tells of its tokens, under whatever names its API has for them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

_TAIL = 16_384  # bytes at the end of a stream that can hold its usage
_MOST = 10_000_000  # tokens that no prompt or answer has
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_eval_count", "inputTokens")
_COMPLETION = (
    "completion_tokens",
    "output_tokens",
    "eval_count",
    "generated_tokens",
    "outputTokens",
)
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details")
# Anthropic counts these beside `input_tokens`.
_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"


class Usage(NamedTuple):
    """Token counts of one answer; None where it does not tell.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached ones among them.
        cached_tokens: Those that the engine had in its cache.
        completion_tokens: Tokens generated.
    """

    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None


class _Reported(msgspec.Struct):
    usage: Any = None
    meta_info: Any = None
    details: Any = None


class _Answer(_Reported):
    response: _Reported | str | None = None
    message: _Reported | str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None


# Only these are built: the rest of an answer may be large.
_answer = msgspec.json.Decoder(_Answer | list[_Answer])


def count(value: Any) -> int | None:
    """A count of tokens; None for anything that cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # JSON may write 7 as 7.0; there is no half of a token.
    return int(value) if 0 <= value <= _MOST and value == int(value) else None


def usage_in(counts: Any) -> Usage | None:
    """The counts of a usage object, or of a mapping of that form; None if it has none.

    Args:
        counts: `usage` of OpenAI's APIs or Anthropic's, `meta_info` of SGLang, `details` of TGI, or
            an answer of Ollama.
    """
    if counts is None:
        return None
    prompt = _first(counts, _PROMPT)
    cached = next(
        (c for name in _DETAILS if (c := _first(_get(counts, name), _CACHED)) is not None), None
    )
    if cached is None:
        cached = _first(counts, _CACHED)
    read, written = count(_get(counts, _READ)), count(_get(counts, _WRITTEN))
    if cached is None and read is not None:
        cached = read
        if prompt is not None and _get(counts, "prompt_tokens") is None:
            prompt += read + (written or 0)
    found = Usage(prompt, cached, _first(counts, _COMPLETION))
    return None if found == (None, None, None) else found


def usage_of(content: bytes | bytearray) -> Usage | None:
    """The counts in an answer, or in the end of a stream of events; None if there are none."""
    head = bytes(content[:64]).lstrip()
    if head.startswith(b"{") and b"\n{" not in content[-_TAIL:]:
        return _usage_of(bytes(content))
    # Events: `data:` lines among `event:`, `id:` and comments, or a JSON object a line.
    found: Usage | None = None
    if head.startswith((b"event:", b":", b"id:", b"retry:")) or b"message_start" in content[:2048]:
        found = _first_usage(bytes(content[:_TAIL]))
    for line in reversed(bytes(content[-_TAIL:]).split(b"\n")):
        last = _usage_of(line.strip().removeprefix(b"data:").strip())
        if last is not None:
            return last if found is None else _joined(found, last)
    return found


def _first_usage(content: bytes) -> Usage | None:
    """Anthropic tells of the prompt at the start of a stream, and of the answer at its end."""
    for line in content.split(b"\n"):
        counts = _usage_of(line.strip().removeprefix(b"data:").strip())
        if counts is not None:
            return counts
    return None


def _joined(first: Usage, last: Usage) -> Usage:
    return Usage(*(a if b is None else b for a, b in zip(first, last, strict=True)))


def _usage_of(text: bytes) -> Usage | None:
    if b"tokens" not in text and b"eval_count" not in text:
        return None
    try:
        answer = _answer.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(answer, list):  # one of each prompt of a batch
        if not answer:
            return None
        answer = answer[0]
    for outer in (answer, answer.response, answer.message):
        if isinstance(outer, _Reported):
            for counts in (outer.usage, outer.meta_info, outer.details):
                if isinstance(counts, dict):
                    return usage_in(counts)
    return usage_in(answer)


def _first(counts: Any, names: tuple[str, ...]) -> int | None:
    return next((c for name in names if (c := count(_get(counts, name))) is not None), None)


def _get(counts: Any, name: str) -> Any:
    return counts.get(name) if isinstance(counts, Mapping) else getattr(counts, name, None)
