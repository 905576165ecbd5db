"""Which strategy a host runs, with which parameters: read from a file, variables or the host."""

import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec

from routecore.errors import RouteError
from routecore.hold import HoldLimits
from routecore.integrations.shared import defaults, misspelt
from routecore.interface import RoutingInterface
from routecore.replicas.keys import seed_of
from routecore.routers import ROUTERS

_PREFIX = "ROUTECORE_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the operator chose.

    Each field is a key of the file that ROUTECORE_CONFIG names (TOML or YAML), and in upper case,
    after ROUTECORE_, a variable that overrides it.

    Attributes:
        known: Strategy word → class: what the host can be given.
        strategy: Key of `known`; each host has a default of its own.
        params: Arguments of its constructor. As a variable: JSON, or `name=value,name=value`.
        mode: "active"; or "shadow", which leaves every choice to the host and records ours.
        shadow_file: Where shadow mode writes its records; "{pid}" becomes the process's number.
        shadow_max_bytes: Above this the file moves to `.1`, and the `.1` before it is gone.
        lease_timeout: Seconds after which a request that never ended leaves the load.
        hold: Requests wait until the endpoint chosen for them has room in its KV cache, where the
            host can wait; see docs/hold.md.
        hold_limits: Fields of `routecore.HoldLimits`, its bounds.
        kv_events: Endpoint → where its engine publishes KV events: an address, or the arguments of
            a `KVSource` (`address`, `replay`, `ranks`, …).
        kv_events_port: The same by rule, for endpoints not named: this port of the endpoint's host.
        kv_replay_port: Port of the engines' `replay_endpoint`, on the host of the event address.
        replicas: What carries load between the routers of a fleet: `redis://host:6379`,
            `zmq://router-headless:5570`, `ipc:///folder`, or `ray`; in LiteLLM also `litellm`,
            its own Redis. None: each is on its own.
        replicas_group: Routers in front of the same engines have the same; others another.
        replicas_secret: The same in all of them: keeps the keys by which they name prompts
            unguessable for those who send requests.
        tokenizer: Folder of the model, whose tokenizer and chat template KV events need.
    """

    known: ClassVar[Mapping[str, type[RoutingInterface]]] = ROUTERS

    strategy: str = defaults.ELSEWHERE
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    mode: Literal["active", "shadow"] = "active"
    shadow_file: str = "routecore-shadow-{pid}.jsonl"
    shadow_max_bytes: int = 64 << 20
    lease_timeout: float = 600.0
    hold: bool = False
    hold_limits: dict[str, Any] = msgspec.field(default_factory=dict)
    kv_events: dict[str, str | dict[str, Any]] = msgspec.field(default_factory=dict)
    kv_events_port: int | None = None
    kv_replay_port: int | None = None
    replicas: str | None = None
    replicas_group: str = "default"
    replicas_secret: str | None = None
    tokenizer: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Settings from a host's configuration, checked for form.

        Raises:
            RouteError: Naming the key, what was expected and what came.
        """
        try:
            return msgspec.convert(dict(given), cls)
        except msgspec.ValidationError as error:
            said = misspelt.field(str(error), cls.__struct_fields__)
            raise RouteError(f"routecore settings: {said}") from None

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """The fields that the file and the variables set.

        Raises:
            RouteError: Naming the file or variable, what was expected and what came; or a variable
                that is spelt almost as one of these.
        """
        known = ["CONFIG", *(name.upper() for name in cls.__struct_fields__)]
        misspelt.variables(_PREFIX, known, environ)
        path = environ.get(_PREFIX + "CONFIG")
        found = cls._from_file(Path(path)) if path else {}
        for field in msgspec.structs.fields(cls):
            name = _PREFIX + field.name.upper()
            text = environ.get(name)
            if not text:
                continue
            is_table = typing.get_origin(field.type) is dict
            value: Any = parameters(text, name) if is_table else text
            try:
                found[field.name] = msgspec.convert(value, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise RouteError(f"{name}={text!r}: {error}") from None
        return found

    @classmethod
    def _from_file(cls, path: Path) -> dict[str, Any]:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise RouteError(f"{_PREFIX}CONFIG={str(path)!r}: {error.strerror}") from None
        decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.yaml.decode
        try:
            found = decode(raw) or {}  # an empty YAML file is None
            msgspec.convert(found, cls)
        except RecursionError:
            raise RouteError(f"{path}: nested too deeply") from None
        except ValueError as error:  # msgspec's and UnicodeDecodeError, too; YAML's bad dates
            said = misspelt.field(str(error), cls.__struct_fields__)
            raise RouteError(f"{path}: {said}") from None
        except ImportError:
            raise RouteError(
                f"{path}: reading YAML needs pyyaml; install it or use .toml"
            ) from None
        return dict(found)

    def accepts(self) -> dict[str, Any]:
        """The parameters of the strategy's class, name → type.

        Raises:
            RouteError: No strategy has the name; lists the valid ones.
        """
        if self.strategy not in self.known:
            valid = ", ".join(self.known)
            raise RouteError(f"strategy: unknown {self.strategy!r}; valid: {valid}")
        init = self.known[self.strategy].__init__
        hints = typing.get_type_hints(init)
        return {name: hints.get(name, Any) for name in [*inspect.signature(init).parameters][1:]}

    def checked(self) -> dict[str, Any]:
        """The parameters, converted to the types that the strategy's class asks for.

        Raises:
            RouteError: An unknown strategy or parameter, or a value of a wrong type.
        """
        accepted = self.accepts()
        made = {}
        for name, value in self.params.items():
            if name not in accepted:
                valid = ", ".join(accepted)
                raise RouteError(f"{self.strategy} takes no parameter {name!r}; valid: {valid}")
            try:
                made[name] = msgspec.convert(value, accepted[name], strict=False)
            except msgspec.ValidationError as error:
                raise RouteError(f"{self.strategy}: parameter {name!r}: {error}") from None
        return made

    def limits(self) -> HoldLimits | None:
        """The bounds of the hold; None without one.

        Raises:
            RouteError: A bound is unknown or of a wrong type, or there is no hold.
        """
        try:
            found = msgspec.convert(self.hold_limits, HoldLimits)
        except msgspec.ValidationError as error:
            said = misspelt.field(str(error), HoldLimits.__struct_fields__)
            raise RouteError(f"hold_limits: {said}") from None
        if self.hold_limits and not self.hold:
            raise RouteError("hold_limits: need hold = true")
        return found if self.hold else None

    def router(self, **more: Any) -> Any:
        """A router of these settings, apart from the singleton of its class.

        Args:
            more: Arguments that no setting holds, such as `kv_index`.

        Raises:
            RouteError: As `checked` and `limits`, or a value out of range.
        """
        self.limits()
        params = self.checked() | more
        if self.replicas is not None and "hash_seed" in self.accepts():
            params.setdefault("hash_seed", seed_of(self.replicas_secret))
        # type.__call__ goes round the singleton metaclass: a process serves several fleets.
        return type.__call__(self.known[self.strategy], **params)


def parameters(text: str, name: str) -> dict[str, Any]:
    """Named values from JSON or from `name=value,name=value`.

    Raises:
        RouteError: `text` is neither; `name` says whose text it is.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except UnicodeEncodeError:
        raise RouteError(f"{name}={text!r}: expected UTF-8") from None
    except RecursionError:
        raise RouteError(f"{name}: nested too deeply") from None
    except msgspec.MsgspecError:
        pass
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise RouteError(f"{name}={text!r}: expected a JSON object or name=value,name=value")
        found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
