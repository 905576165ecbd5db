"""Request bodies → token ids: the host's own, or the model's tokenizer and chat template."""

import asyncio
import logging
import re
import threading
from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from routecore.errors import RouteError
from routecore.process import renew_lock
from routecore.requests.body import has_prompt
from routecore.requests.conversation import (
    Unknown,
    conversation,
    given_ids,
    given_text,
    messages_of,
    names_of,
    tools_of,
)
from routecore.requests.templates import ContentFormat, Template, Templates, compiled, read_folder

_LOG = logging.getLogger("routecore.kv_events")
_NOTHING = (
    "no tokenizer and chat template for the prompts: KV events cannot be matched; "
    "pass token ids or PromptTokens.from_model(folder)"
)
_MOST_KINDS = 32
_CHECKED = 16  # first prompts that are also tokenised as a whole, to compare

TokenIds = Sequence[int]


class PromptTokens:
    """The token ids that an engine computes of a request body.

    Bodies that bring ids (`prompt_token_ids`, `input_ids`, or a `prompt` of integers) need nothing
    else. Chats are rendered as vLLM renders them. Text is cut at the special tokens of its chat
    template and every piece is tokenised once, so that a long conversation costs its new turn
    only. Safe to use from several threads.

    Args:
        tokenizer: A `tokenizers.Tokenizer`, or the path of a `tokenizer.json`.
        chat_template: Of the model, in Jinja, or templates by name ("default", "tool_use"); runs
            in a sandbox.
        special_tokens: Names the template uses, such as `bos_token`.
        content_format: How the template gets a message's content: "string", or "openai" for a
            list of parts; None: as vLLM detects it. Its `--chat-template-content-format`.
        trust_request_chat_template: Whether to render a template that comes in a request, as
            vLLM's flag of that name. Anybody's template may take any time: for clients that
            you trust.
        cache_tokens: Token ids that are kept.

    Attributes:
        unknown: Why prompts had no ids, and how many: the first of each kind is in the log.

    Raises:
        RouteError: If the tokenizer or template cannot be read.
        ImportError: If `tokenizers` or `jinja2` is missing; names the extra.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        chat_template: str | dict[str, str] | None = None,
        *,
        special_tokens: dict[str, str] | None = None,
        content_format: ContentFormat | None = None,
        trust_request_chat_template: bool = False,
        cache_tokens: int = 4_000_000,
    ) -> None:
        self._tokenizer = _tokenizer(tokenizer)
        self._templates = None if chat_template is None else Templates(chat_template)
        self._form, self._trusts = content_format, trust_request_chat_template
        self._names = dict(special_tokens or {})
        self._cache_tokens = cache_tokens
        self._pieces: OrderedDict[str, array[int]] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        renew_lock(self, "_lock")
        self._cut = None if self._tokenizer is None else _boundaries(self._tokenizer)
        self._checks_left = _CHECKED
        self.unknown: Counter[str] = Counter()

    @classmethod
    def from_model(cls, folder: str | Path, **options: Any) -> "PromptTokens":
        """Of a model's folder: `tokenizer.json`, and the chat template beside it.

        Raises:
            RouteError: If a file is missing or cannot be read.
        """
        folder = Path(folder)
        templates, names = read_folder(folder)
        return cls(folder / "tokenizer.json", templates, special_tokens=names, **options)

    def ids(self, body: dict[str, Any]) -> TokenIds | None:
        """The prompt's token ids; None where they cannot be known, counted in `unknown`.

        That is so for images and other media, several prompts in one request, what a stored
        response continues, and for a chat that the template fails for: the engine will refuse
        it too, unless the template is not the one that it uses.
        """
        try:
            return self._ids(body)
        except Unknown as why:
            self._note(str(why))
        return None

    def _ids(self, body: dict[str, Any]) -> TokenIds | None:
        given = given_ids(body)
        if given is not None:
            return given
        text = given_text(body)
        if text is None:
            return self._chat(body)
        if self._tokenizer is None:
            raise Unknown(_NOTHING)
        # Completions get the tokenizer's own start and end; pieces would each get them.
        return self._piece(text, whole=body.get("add_special_tokens") is not False)

    def _chat(self, body: dict[str, Any]) -> TokenIds | None:
        messages = messages_of(body)
        if messages is None:
            if has_prompt(body):
                raise Unknown("a prompt of no kind that is tokenised here")
            return None
        tools = tools_of(body)
        template = self._template(body, tools)
        if self._tokenizer is None or template is None:
            raise Unknown(_NOTHING)
        turns = conversation(messages, self._form or template.content_format)
        names = {**self._names, **names_of(body), "tools": tools}
        try:
            text = template.render(turns, **names)
        except Exception as error:  # templates are the model's, messages anybody's
            # Python's own words name the cause; what a request put into them is cut off.
            raise Unknown(f"chat template: {type(error).__name__}: {str(error)[:200]}") from None
        if body.get("add_special_tokens") is True:
            return self._piece(text, whole=True)
        return self._text(text)

    def _template(self, body: dict[str, Any], tools: Any) -> Template | None:
        own = body.get("chat_template")
        if own is None:
            return None if self._templates is None else self._templates.of(tools)
        known = None if self._templates is None else self._templates.known(str(own))
        if known is None and self._trusts:
            try:
                return compiled(str(own))
            except RouteError as error:
                raise Unknown(f"chat template of a request: {str(error)[:200]}") from None
        if known is None:
            raise Unknown("a chat template came with the request: trust_request_chat_template")
        return known

    def _note(self, why: str) -> None:
        # Kinds, not words: templates may put anything of a request into their errors.
        kind = why[:80]
        with self._lock:
            if kind not in self.unknown and len(self.unknown) >= _MOST_KINDS:
                kind = "other"
            self.unknown[kind] += 1
            first = self.unknown[kind] == 1
        if first:
            _LOG.warning(
                "no token ids of a prompt, which is matched by its text and by history "
                "(said once a kind): %s",
                why,
            )

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
