"""Compares what the router would believe of an engine with what the engine itself says."""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import httpx

from routecore.endpoints.metrics import read_metrics
from routecore.kv_events.source import KVSource
from routecore.kv_events.tokens import PromptTokens

_TEXT = "time engine cache block token router prompt answer shop order ship price"
_WORDS = _TEXT.split()
_EVENT_SECONDS = 3.0


class Finding(NamedTuple):
    """One thing that was compared.

    `result` is `ok`, `differs`, or `unknown` where the engine does not tell.
    """

    what: str
    result: Literal["ok", "differs", "unknown"]
    detail: str


class _Engine:
    """The engine's HTTP side."""

    def __init__(self, url: str, headers: dict[str, str], verify: bool) -> None:
        self.http = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=60.0, trust_env=False, verify=verify
        )
        self.model = self.http.get("/v1/models").raise_for_status().json()["data"][0]["id"]

    def tokenize(self, body: dict[str, Any]) -> list[int] | None:
        answer = self.http.post("/tokenize", json={"model": self.model, **body})
        return list(answer.json()["tokens"]) if answer.status_code == 200 else None

    def complete(self, text: str) -> tuple[int, int | None]:
        """Prompt tokens, and those found in the cache where that is reported."""
        body = {"model": self.model, "prompt": text, "max_tokens": 1, "temperature": 0.0}
        usage = self.http.post("/v1/completions", json=body).raise_for_status().json()["usage"]
        details = usage.get("prompt_tokens_details") or {}
        return usage["prompt_tokens"], details.get("cached_tokens")


def bodies() -> Iterator[dict[str, Any]]:
    """Small requests whose rendering tells templates apart."""
    user = {"role": "user", "content": "How late is it in Köln?"}
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "now", "arguments": '{"city": "Köln"}'},
    }
    yield {"prompt": "A plain text.\nWith a second line."}
    yield {"messages": [user]}
    yield {"messages": [{"role": "system", "content": "You are terse."}, user]}
    yield {"messages": [{"role": "user", "content": [{"type": "text", "text": "as a part"}]}]}
    yield {"messages": [user, {"role": "assistant", "content": "Late."}, user]}
    yield {
        "messages": [
            user,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00001", "content": "noon"},
        ]
    }


def check(
    url: str,
    source: KVSource | None = None,
    tokens: PromptTokens | None = None,
    *,
    headers: dict[str, str] | None = None,
    verify: bool = True,
) -> Iterator[Finding]:
    """What agrees and what does not, one finding after the other.

    Sends some ten short requests of its own, each of one token.

    Args:
        url: The engine's HTTP address.
        source: Where it publishes its events; None: they are not looked at.
        tokens: What turns bodies into ids; None: ids are not compared.
        headers: Sent with each request, such as a token.
        verify: Whether an `https` address must show a trusted certificate.

    Raises:
        httpx.HTTPError: The engine does not answer.
    """
    engine = _Engine(url, dict(headers or {}), verify)
    try:
        yield from _metrics(engine)
        if tokens is not None:
            for body in bodies():
                yield _ids(engine, tokens, body)
        if source is not None:
            yield from _promises(engine, source, tokens)
    finally:
        engine.http.close()


def _metrics(engine: _Engine) -> Iterator[Finding]:
    try:
        reading = read_metrics(engine.http.get("/metrics").text)
    except ValueError as error:
        yield Finding("metrics", "unknown", str(error))
        return
    size = "not reported" if reading.kv_tokens is None else f"{reading.kv_tokens:,.0f} tokens"
    yield Finding("KV cache", "unknown" if reading.kv_tokens is None else "ok", size)


def _ids(engine: _Engine, tokens: PromptTokens, body: dict[str, Any]) -> Finding:
    what = "ids of a text" if "prompt" in body else "ids of a chat: " + _named(body)
    there = engine.tokenize(body)
    if there is None:
        return Finding(what, "unknown", "the engine refuses it, or has no /tokenize")
    try:
        here = tokens.ids({"model": engine.model, **body})
    except Exception as error:  # a template's own
        return Finding(what, "differs", f"no ids: {type(error).__name__}: {error}")
    if here is None:
        return Finding(what, "unknown", "not known to the router: it goes by its text")
    if list(here) == there:
        return Finding(what, "ok", f"{len(there)} ids")
    pairs = enumerate(zip(here, there, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(here), len(there)))
    return Finding(
        what,
        "differs",
        f"{len(here)} ids here, {len(there)} in the engine, first other at {at}: is the tokenizer "
        "the engine's, and the chat template?",
    )


def _named(body: dict[str, Any]) -> str:
    kinds = [
        "part" if isinstance(message["content"], list) else message["role"]
        for message in body["messages"]
    ]
    return ", ".join(kinds)


def _promises(engine: _Engine, source: KVSource, tokens: PromptTokens | None) -> Iterator[Finding]:
    from routecore.kv_events.subscriber import KVEventSubscriber

    subscriber = KVEventSubscriber([source])
    index, url = subscriber.index, source.url
    fresh = " ".join(secrets.choice(_WORDS) for _ in range(700))
    texts = [fresh, fresh, fresh + " and more of it", fresh[: len(fresh) // 2]]
    try:
        if not _until(lambda: all(p["connected"] for p in subscriber.status()[url])):
            yield Finding("events", "differs", f"no connection to {source.address}")
            return
        engine.complete(f"first {fresh[:2000]}")
        heard = _until(lambda: any(p.get("batches") for p in subscriber.status()[url]))
        if not heard:
            yield Finding(
                "events", "differs", "connected, but nothing is published: are events enabled?"
            )
            return
        exact = _until(lambda: index.is_exact(url))
        detail = f"blocks of {index.block_size(url)} tokens"
        yield Finding("events", "ok" if exact else "differs", detail + ("" if exact else _partial))
        for nth, text in enumerate(texts):
            body = {"prompt": text}
            ids = engine.tokenize(body) if tokens is None else tokens.ids(body)
            held = 0 if ids is None else index.matched(ids, [url])[0][0]
            prompt, cached = engine.complete(text)
            what = f"promise {nth + 1} of {len(texts)}"
            if cached is None and nth == 0:
                detail = (
                    "usage tells no cached tokens: vLLM does with --enable-prompt-tokens-details"
                )
                yield Finding(what, "unknown", detail)
                return
            result: Any = "ok" if held == (cached or 0) else "differs"
            yield Finding(what, result, f"{held} promised, {cached or 0} found, of {prompt} tokens")
            if ids is not None:
                _until(lambda ids=ids: index.matched(ids, [url])[0][0] > 0)  # type: ignore[misc]
                time.sleep(0.1)
    finally:
        subscriber.close()


_partial = "; not complete: is a replay endpoint given, and every rank heard?"


def _until(so: Callable[[], bool]) -> bool:
    end = time.monotonic() + _EVENT_SECONDS
    while not so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
