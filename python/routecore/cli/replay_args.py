"""What the options of `routecore replay` mean: lists, parameters, strategies."""

import difflib
import importlib
import re
import sys
from typing import Any

from routecore.errors import RouteError


def numbers(text: str, option: str, *, repeats: bool = False) -> list[float]:
    """A comma list of numbers."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise RouteError(f"{option}: expected numbers with commas between, got {text!r}") from None
    return found if repeats else list(dict.fromkeys(found))


def milliseconds(text: str, option: str) -> float:
    """A time with its unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if not match:
        raise RouteError(f"{option}: expected a time as 50ms or 5s, got {text!r}")
    return float(match[1]) * (1e3 if match[2] == "s" else 1.0)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def params(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` as parameters; `weights.in_flight=1` sets one of several."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RouteError(f"--param: expected key=value, got {pair!r}")
        name, dot, inner = key.partition(".")
        if dot:
            group = found.setdefault(name, {})
            if not isinstance(group, dict):
                raise RouteError(f"--param: {name!r} is given both a value and parts of one")
            group[inner] = _number(value)
        else:
            found[name] = _number(value)
    return found


def key(word: str, option: str) -> str:
    """A strategy's word; `-` for `_` and the name of the class will do.

    Raises:
        RouteError: Nothing is called so; names the nearest, and all.
    """
    from routecore import ROUTERS

    names = {cls.__name__.lower(): name for name, cls in ROUTERS.items()}
    plain = word.strip().lower().replace("-", "_")
    found = plain if plain in ROUTERS else names.get(plain)
    if found is not None:
        return found
    near = difflib.get_close_matches(plain, ROUTERS, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}" if near else ""
    if plain == "prefill_decode":
        hint = " here, where nobody asks for both halves of a request"
    raise RouteError(f"{option}: unknown {word!r}{hint}; valid: {', '.join(ROUTERS)}")


def strategy(word: str, option: str = "--strategy") -> Any:
    """A strategy's word, or `module:Class` of a router in Python."""
    module, colon, name = word.partition(":")
    if not colon:
        return key(word, option)
    if module.endswith(".py"):
        raise RouteError(f"{option} {word}: write the module's name, {module[:-3]}:{name}")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RouteError(f"{option} {word}: {error}") from None
    finally:
        sys.path.remove("")
