"""Chat templates, as transformers renders them and vLLM calls them.

The environment is that of transformers' `apply_chat_template`, so that a router need not import
transformers; a test renders a corpus with both.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from routecore.errors import RouteError

ContentFormat = Literal["string", "openai"]
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
           "mask_token")  # fmt: skip
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "


class Template:
    """One compiled template.

    Args:
        source: Jinja; runs in a sandbox.

    Attributes:
        content_format: What it takes a message's content for: "openai" where it iterates over the
            parts of it, else "string". As vLLM detects it.

    Raises:
        RouteError: If it is no Jinja.
        ImportError: If `jinja2` is missing; names the extra.
    """

    def __init__(self, source: str) -> None:
        from jinja2 import TemplateError

        environment = _environment()
        try:
            self._template = environment.from_string(source)
            self.content_format = _content_format(environment.parse(source))
        except TemplateError as error:
            raise RouteError(f"chat template: {error}") from None
        self.source = source

    def render(
        self, messages: list[dict[str, Any]], *, continue_final_message: bool = False, **names: Any
    ) -> str:
        """The prompt's text.

        Args:
            messages: The conversation; its last message is changed if it is to be continued.
            continue_final_message: Whether the prompt ends within the last message.
            **names: What the template may read: tools, documents, special tokens and so on.

        Raises:
            Exception: Whatever the template raises; `ValueError` where nothing can be continued.
        """
        if not continue_final_message:
            return str(self._template.render(messages=messages, **names))
        final = _tagged(messages)
        text = str(self._template.render(messages=messages, **names))
        tag = _CONTINUE.strip()
        if final.strip() not in text or tag not in text:
            raise ValueError("continue_final_message: the final message is not in the prompt")
        at = text.rindex(tag)
        whole = text[at : at + len(_CONTINUE)] == _CONTINUE
        return text[:at] if whole else text[:at].rstrip()


class Templates:
    """The templates of a model: the default one, and others by name.

    Args:
        given: One template, or templates by name ("default", "tool_use", …).
    """

    def __init__(self, given: str | dict[str, str]) -> None:
        sources = {"default": given} if isinstance(given, str) else given
        self._named = {name: Template(source) for name, source in sources.items()}

    def of(self, tools: Any) -> Template | None:
        """The template for a request; None if the model has none for it."""
        if tools is not None and "tool_use" in self._named:
            return self._named["tool_use"]
        return self._named.get("default")

    def known(self, source: str) -> Template | None:
        """One of these templates by its text or name."""
        named = self._named.get(source)
        return named or next((t for t in self._named.values() if t.source == source), None)


@lru_cache(maxsize=32)
def compiled(source: str) -> Template:
    """A template that came with a request."""
    return Template(source)


def _tagged(messages: list[dict[str, Any]]) -> str:
    """Marks where the last message ends; its text."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, str):
        messages[-1]["content"] = content + _CONTINUE
        return content
    for part in reversed(content or ()):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _CONTINUE
            return text
    raise ValueError("continue_final_message: the final message has no text")


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        raise ImportError("chat templates need: pip install 'routecore[tokens]'") from error

    class Generation(Extension):
        """`{% generation %}` marks what a model is trained on; nothing is rendered for it."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _content_format(tree: Any) -> ContentFormat:
    """ "openai" if a loop goes over the content of an item of `messages`."""
    from jinja2 import nodes

    conversations = {"messages"}
    while True:  # `set history = messages[1:]`, also of such a name
        more = {
            node.target.name
            for node in tree.find_all(nodes.Assign)
            if isinstance(node.target, nodes.Name)
            and any(_reads(node.node, name) for name in conversations)
        }
        if more <= conversations:
            break
        conversations |= more
    items = {name for names in conversations for name in _loops(tree, names, None)}
    return "openai" if any(True for m in items for _ in _loops(tree, m, "content")) else "string"


def _loops(tree: Any, name: str, key: str | None) -> Iterator[str]:
    """What loops over a variable, or over a key of it, call their items."""
    from jinja2 import nodes

    for node in tree.find_all(nodes.For):
        if _reads(node.iter, name, key) and isinstance(node.target, nodes.Name):
            yield node.target.name


def _reads(node: Any, name: str, key: str | None = None) -> bool:
    """Whether it is the variable, or a key of it, perhaps filtered or sliced."""
    from jinja2 import nodes

    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    if key is not None:
        if isinstance(node, nodes.Getitem):
            found = isinstance(node.arg, nodes.Const) and node.arg.value == key
        else:
            found = isinstance(node, nodes.Getattr) and node.attr == key
        if not found:
            return False
        node = node.node
    return isinstance(node, nodes.Name) and node.name == name and node.ctx == "load"


def read_folder(folder: Path) -> tuple[str | dict[str, str] | None, dict[str, Any]]:
    """The templates of a model's folder and the names that they may use.

    What stands in a file of its own goes before `tokenizer_config.json`.

    Raises:
        RouteError: If a file cannot be read.
    """
    try:
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text("utf-8")) if path.exists() else {}
        given = config.get("chat_template")
        path = folder / "chat_template.json"  # of older processors
        if path.exists():
            given = json.loads(path.read_text("utf-8"))["chat_template"]
        named = dict(given) if isinstance(given, dict) else {}
        if isinstance(given, list):
            named = {one["name"]: one["template"] for one in given}
        elif isinstance(given, str):
            named = {"default": given}
        path = folder / "chat_template.jinja"
        if path.exists():
            named["default"] = path.read_text("utf-8")
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
            named[path.stem] = path.read_text("utf-8")
        path = folder / "special_tokens_map.json"
        special = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RouteError(f"chat template in {folder}: {error}") from None
    names: dict[str, Any] = {}
    for source in (special, config):
        for name in _TOKENS:
            value = source.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                names[name] = value
    return named or None, names
