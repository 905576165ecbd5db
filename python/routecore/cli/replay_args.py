"""What the options of `routecore replay` mean: lists, parameters, strategies."""

import importlib
import re
import sys
from typing import Any

from routecore.cli.own_router import guarded
from routecore.errors import RouteError, unknown


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
    if not plain:
        raise RouteError(f"{option}: expected a strategy, got nothing; valid: {', '.join(ROUTERS)}")
    if plain == "prefill_decode":
        raise RouteError(
            f"{option}: {word} needs a host that asks for both halves of a request; "
            f"valid here: {', '.join(ROUTERS)}"
        )
    raise RouteError(f"{option}: unknown {unknown(word, ROUTERS)}")


def strategy(word: str, option: str = "--strategy") -> Any:
    """A strategy's word, or `module:Class` of a router in Python."""
    module, colon, name = word.partition(":")
    if not colon:
        return key(word, option)
    if module.endswith(".py"):
        raise RouteError(f"{option} {word}: write the module's name, {module[:-3]}:{name}")
    sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        where = "; run this in its folder, or set PYTHONPATH" if error.name == module else ""
        raise RouteError(f"{option} {word}: {error}{where}") from None
    except Exception as error:  # the module's own
        raise RouteError(f"{option} {word}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove("")
    routers = [at for at, item in vars(found).items() if hasattr(item, "route_request")]
    if not hasattr(found, name):
        raise RouteError(f"{option} {word}: no {unknown(name, routers)}")
    return guarded(word, getattr(found, name))


def fleet(given: dict[str, Any], kv_events: bool, kv_event_delay: str) -> None:
    """Read what the options of the fleet say, in place.

    Raises:
        RouteError: One of them cannot be read, or stands without the one it needs.
    """
    if given["speeds"]:
        given["speeds"] = numbers(given["speeds"], "--speeds", repeats=True)
    delay = milliseconds(kv_event_delay, "--kv-event-delay")
    given["kv_event_delay_ms"] = delay if kv_events else None
    if delay and not kv_events:
        raise RouteError("--kv-event-delay: give --kv-events with it")
    if given["share"] is not None:
        from routecore.replay.share import Share

        if given["routers"] == 1:
            raise RouteError("--share: give --routers with it; one router has nobody to tell")
        given["share"] = Share.of(given["share"])
