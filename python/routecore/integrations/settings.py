"""Which strategy a host runs, with which parameters; from its own configuration or variables."""

import inspect
import os
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from routecore.errors import RouteError
from routecore.routers import ROUTERS, CompiledRouter

DEFAULT_STRATEGY = "prefix_cache"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the operator chose.

    Attributes:
        strategy: Key of `ROUTERS`.
        params: Arguments of its constructor.
        mode: "active"; or "shadow", which leaves every choice to the host and records ours.
        shadow_file: Where shadow mode writes its records; "{pid}" becomes the process's number.
        shadow_max_bytes: Above this the file moves to `.1`, and the `.1` before it is gone.
        lease_timeout: Seconds after which a request that never ended leaves the load.
    """

    strategy: str = DEFAULT_STRATEGY
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    mode: Literal["active", "shadow"] = "active"
    shadow_file: str = "routecore-shadow-{pid}.jsonl"
    shadow_max_bytes: int = 64 << 20
    lease_timeout: float = 600.0

    def router(self) -> CompiledRouter:
        """A router of these settings, apart from the singleton of its class.

        Raises:
            RouteError: If there is no such strategy or parameter, or a value is refused.
        """
        cls = ROUTERS.get(self.strategy)
        if cls is None:
            raise RouteError(f"strategy: unknown {self.strategy!r}; valid: {', '.join(ROUTERS)}")
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        for name in self.params:
            if name not in known:
                valid = ", ".join(known)
                raise RouteError(f"{self.strategy}: unknown parameter {name!r}; valid: {valid}")
        # type.__call__ goes round the singleton metaclass: a process serves several fleets.
        return cast(CompiledRouter, type.__call__(cls, **self.params))


def settings(given: Mapping[str, Any]) -> Settings:
    """Settings from a host's configuration, checked.

    Raises:
        RouteError: Naming the key, what was expected and what came.
    """
    try:
        return msgspec.convert(dict(given), Settings)
    except msgspec.ValidationError as error:
        raise RouteError(f"routecore settings: {error}") from None


def environment() -> dict[str, Any]:
    """Settings from variables: ROUTECORE_STRATEGY, ROUTECORE_MODE, and so on for each field.

    ROUTECORE_PARAMS is a JSON object.

    Raises:
        RouteError: Naming the variable, what was expected and what came.
    """
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        name = f"ROUTECORE_{field.name.upper()}"
        text = os.environ.get(name)
        if not text:
            continue
        try:
            value = msgspec.json.decode(text) if field.name == "params" else text
            found[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.MsgspecError as error:
            raise RouteError(f"{name}={text!r}: {error}") from None
    return found
