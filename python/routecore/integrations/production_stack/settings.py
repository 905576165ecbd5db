"""What the user chose: a file, overridden by environment variables, checked before it is used."""

import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from routecore.errors import RouteError
from routecore.interface import RoutingInterface
from routecore.prefill_decode import PrefillDecodeRouter
from routecore.routers import ROUTERS

_PREFIX = "ROUTECORE_"
_KNOWN: dict[str, type[RoutingInterface]] = {
    **ROUTERS,
    PrefillDecodeRouter.strategy: PrefillDecodeRouter,
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of this integration.

    Each field is a key of the file that `ROUTECORE_CONFIG` names (TOML or YAML), and in upper
    case, after `ROUTECORE_`, an environment variable that overrides it.

    Attributes:
        strategy: A word of `routecore strategies`; None: our equal of the host's routing logic.
        params: Parameters of the strategy. As a variable: JSON, or `name=value,name=value`.
        mode: "active" routes; "shadow" only records what it would have done.
        shadow_file: Where shadow mode writes its records, one JSON object a line.
        shadow_max_bytes: Above this the file moves to `.1`, and the `.1` before it is gone.
        lease_timeout: Seconds after which a request that never ended leaves the load.
        cache_discovery: Keep the endpoint objects of a static discovery between requests.
    """

    strategy: str | None = None
    params: dict[str, Any] = {}
    mode: Literal["active", "shadow"] = "active"
    shadow_file: str = "routecore-shadow.jsonl"
    shadow_max_bytes: int = 64 << 20
    lease_timeout: float = 600.0
    cache_discovery: bool = True


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a process.

    Raises:
        RouteError: A file or value is wrong; the text names it.
    """
    path = environ.get(_PREFIX + "CONFIG")
    settings = _from_file(Path(path)) if path else Settings()
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        name = _PREFIX + field.name.upper()
        text = environ.get(name)
        if not text:
            continue
        value: Any = parameters(text, name) if field.name == "params" else text
        try:
            changes[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise RouteError(f"{name}={text!r}: {error}") from None
    settings = msgspec.structs.replace(settings, **changes)
    if settings.strategy is not None:
        checked(settings.strategy, settings.params)
    elif settings.params:
        raise RouteError(f"params {sorted(settings.params)}: need a strategy to belong to")
    return settings


def _from_file(path: Path) -> Settings:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RouteError(f"{_PREFIX}CONFIG={str(path)!r}: {error.strerror}") from None
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.yaml.decode
    try:
        return decode(raw, type=Settings)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RouteError(f"{path}: {error}") from None
    except ImportError:
        raise RouteError(f"{path}: reading YAML needs pyyaml; install it or use .toml") from None


def parameters(text: str, name: str) -> dict[str, Any]:
    """Named values from JSON or from `name=value,name=value`.

    Raises:
        RouteError: `text` is neither; `name` says whose text it is.
    """
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        found = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise RouteError(
                    f"{name}={text!r}: expected a JSON object or name=value,name=value"
                ) from None
            found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def accepts(strategy: str) -> dict[str, Any]:
    """The parameters of a strategy's class, name → type.

    Raises:
        RouteError: No strategy has the name; lists the valid ones.
    """
    if strategy not in _KNOWN:
        raise RouteError(f"strategy: unknown {strategy!r}; valid: {', '.join(_KNOWN)}")
    init = _KNOWN[strategy].__init__
    hints = typing.get_type_hints(init)
    return {name: hints.get(name, Any) for name in [*inspect.signature(init).parameters][1:]}


def checked(strategy: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, converted to the types that the strategy's class asks for.

    Raises:
        RouteError: An unknown strategy or parameter, or a value of a wrong type.
    """
    known = accepts(strategy)
    made = {}
    for name, value in params.items():
        if name not in known:
            raise RouteError(f"{strategy} takes no parameter {name!r}; valid: {', '.join(known)}")
        try:
            made[name] = msgspec.convert(value, known[name], strict=False)
        except msgspec.ValidationError as error:
            raise RouteError(f"{strategy}: parameter {name!r}: {error}") from None
    return made


def build(strategy: str, params: Mapping[str, Any]) -> RoutingInterface:
    """A router of one's own, whatever instance of its class the process has besides.

    Raises:
        RouteError: As `checked`, or a value out of range.
    """
    made: RoutingInterface = type.__call__(_KNOWN[strategy], **checked(strategy, params))
    return made
