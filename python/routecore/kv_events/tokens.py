"""Request bodies → token ids: the host's own, or the model's tokenizer and chat template."""

import asyncio
import json
import logging
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from routecore.errors import RouteError
from routecore.process import renew_lock

_LOG = logging.getLogger("routecore.kv_events")
_CHECKED = 16  # first prompts that are also tokenised as a whole, to compare

TokenIds = Sequence[int]


class PromptTokens:
    """The token ids that an engine computes of a request body.

    Bodies that bring ids (`prompt_token_ids`, or a `prompt` of integers) need nothing else. Text is
    cut at the special tokens of its chat template and every piece is tokenised once, so that a
    long conversation costs its new turn only. Safe to use from several threads.

    Args:
        tokenizer: A `tokenizers.Tokenizer`, or the path of a `tokenizer.json`.
        chat_template: Of the model, in Jinja; runs in a sandbox.
        special_tokens: Names the template uses, such as `bos_token`.
        cache_tokens: Token ids that are kept.

    Raises:
        RouteError: If the tokenizer or template cannot be read.
        ImportError: If `tokenizers` or `jinja2` is missing; names the extra.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        chat_template: str | None = None,
        *,
        special_tokens: dict[str, str] | None = None,
        cache_tokens: int = 4_000_000,
    ) -> None:
        self._tokenizer = _tokenizer(tokenizer)
        self._template = None if chat_template is None else _template(chat_template)
        self._names = dict(special_tokens or {})
        self._cache_tokens = cache_tokens
        self._pieces: OrderedDict[str, array[int]] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        renew_lock(self, "_lock")
        self._cut = None if self._tokenizer is None else _boundaries(self._tokenizer)
        self._checks_left = _CHECKED
        self._told = False

    @classmethod
    def from_model(cls, folder: str | Path, **options: Any) -> "PromptTokens":
        """Of a model's folder: `tokenizer.json`, and the chat template beside it.

        Raises:
            RouteError: If a file is missing or cannot be read.
        """
        folder = Path(folder)
        try:
            path = folder / "tokenizer_config.json"
            config = json.loads(path.read_text("utf-8")) if path.exists() else {}
            template = config.get("chat_template")
            if isinstance(template, list):  # several, by name
                template = next((t["template"] for t in template if t["name"] == "default"), None)
            path = folder / "chat_template.jinja"
            if path.exists():
                template = path.read_text("utf-8")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RouteError(f"chat template in {folder}: {error}") from None
        names = {}
        for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
            value = config.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                names[name] = value
        return cls(folder / "tokenizer.json", template, special_tokens=names, **options)

    def ids(self, body: dict[str, Any]) -> TokenIds | None:
        """The prompt's token ids; None where they cannot be known (said once in the log).

        A body that the template refuses has none either: the engine will refuse it too.
        """
        given = body.get("prompt_token_ids")
        prompt = body.get("prompt") if given is None else given
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            return prompt
        messages = body.get("messages")
        if isinstance(prompt, str) and self._tokenizer is not None:
            # Completions get the tokenizer's own start and end; pieces would each get them.
            return self._piece(prompt, whole=True)
        if isinstance(messages, list) and self._tokenizer is not None and self._template:
            try:
                text = self._template(
                    messages=messages,
                    tools=body.get("tools"),
                    add_generation_prompt=body.get("add_generation_prompt", True),
                    **self._names,
                    **(body.get("chat_template_kwargs") or {}),
                )
            except Exception as error:  # templates are the model's, messages anybody's
                _LOG.debug("chat template: %s", error)
                return None
            return self._text(text)
        if not self._told and (messages or prompt):
            self._told = True
            _LOG.warning(
                "no tokenizer and chat template for the prompts: KV events cannot be matched; "
                "pass token ids or PromptTokens.from_model(folder)"
            )
        return None

    async def ids_in(self, executor: Executor | None, body: dict[str, Any]) -> TokenIds | None:
        """`ids(body)` in a thread of the executor: tokenising releases the GIL.

        Args:
            executor: The event loop's own if None.
            body: The request's.
        """
        return await asyncio.get_running_loop().run_in_executor(executor, self.ids, body)

    def _text(self, text: str) -> TokenIds:
        if self._cut is None:
            return self._piece(text)
        out: array[int] = array("I")
        for piece in self._cut.split(text):
            if piece:
                out.extend(self._piece(piece))
        if self._checks_left > 0:
            self._checks_left -= 1
            whole = self._encode(text)
            if whole != out:
                # Some tokenizers look past special tokens: then only whole prompts are kept.
                self._cut = None
                return whole
        return out

    def _piece(self, text: str, whole: bool = False) -> "array[int]":
        key = "\0" + text if whole else text
        with self._lock:
            known = self._pieces.get(key)
            if known is not None:
                self._pieces.move_to_end(key)
                return known
        made = self._encode(text, whole)
        with self._lock:
            if key not in self._pieces and len(made) <= self._cache_tokens:
                self._pieces[key] = made
                self._kept += len(made) + 1
                while self._kept > self._cache_tokens:
                    _, old = self._pieces.popitem(last=False)
                    self._kept -= len(old) + 1
        return made

    def _encode(self, text: str, whole: bool = False) -> "array[int]":
        # A lone surrogate has no bytes: what engines see is the replacement.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return array("I", self._tokenizer.encode(text, add_special_tokens=whole).ids)


def _tokenizer(given: Any) -> Any:
    if not isinstance(given, str | Path):
        return given
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ImportError("tokenizing needs: pip install 'routecore[tokens]'") from error
    try:
        return Tokenizer.from_file(str(given))
    except Exception as error:  # the library raises plain Exception
        raise RouteError(f"tokenizer {str(given)!r}: {error}") from None


def _boundaries(tokenizer: Any) -> re.Pattern[str] | None:
    """Special tokens that end what is before them whatever it is; None if there are none."""
    texts = [
        token.content
        for token in tokenizer.get_added_tokens_decoder().values()
        if token.special and not (token.lstrip or token.rstrip or token.single_word)
    ]
    if not texts:
        return None
    # The longest first, as the tokenizer itself prefers.
    texts.sort(key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, texts))})")


def _template(source: str) -> Callable[..., str]:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        raise ImportError("chat templates need: pip install 'routecore[tokens]'") from error

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    # As transformers renders them.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source).render
    except TemplateError as error:
        raise RouteError(f"chat template: {error}") from None
