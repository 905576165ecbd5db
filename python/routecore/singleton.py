"""One instance per class, as the documented page has it, and the way to a second one."""

import threading
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from routecore.errors import RouteError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_type_call: Any = type.__call__
"""Constructs an instance as any class would, past a metaclass's own call."""

_made_with: dict[type, tuple[object, tuple[Any, ...], dict[str, Any]]] = {}
"""Class → its instance, and what that was constructed with."""


def the_instance(
    cls: type,
    instances: dict[type, Any],
    lock: "threading.RLock",  # type: ignore[valid-type,unused-ignore]  # a function before 3.13
    make: Callable[[], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    strict: bool,
) -> Any:
    """The class's one instance in `instances`, made by `make` if there is none yet.

    Args:
        cls: The class that is called.
        instances: The registry, class to instance.
        lock: Guards the registry; re-entrant, because a constructor may ask for another singleton.
        make: Constructs the instance.
        args: Positional arguments of this call.
        kwargs: Keyword arguments of this call.
        strict: Refuse arguments that differ from the first ones; else warn of them.

    Raises:
        RouteError: The class has an instance that was made with other arguments.
    """
    found = instances.get(cls)
    if found is None:
        with lock:
            found = instances.get(cls)
            if found is None:
                found = instances[cls] = make()
                _made_with[cls] = (found, args, kwargs)
                return found
    if args or kwargs:
        _check_same(cls, found, args, kwargs, strict)
    return found


def _check_same(
    cls: type, found: object, args: tuple[Any, ...], kwargs: dict[str, Any], strict: bool
) -> None:
    made = _made_with.get(cls)
    # An instance that somebody put into the registry: nobody knows how it was made.
    if made is None or made[0] is not found:
        return
    if _bound(cls, *made[1:]) == _bound(cls, args, kwargs):
        return
    name = cls.__name__
    reason = (
        f"{name} is a singleton and was made with other arguments; {name}() returns it, "
        f"routecore.new_instance({name}, …) makes a second one"
    )
    if strict:
        raise RouteError(reason)
    warnings.warn(reason, RuntimeWarning, stacklevel=4)


def _bound(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments by parameter, defaults filled in, so that equal calls compare equal."""
    from inspect import signature

    try:
        bound = signature(cls.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    except (TypeError, ValueError):
        return args, kwargs
    bound.apply_defaults()
    return list(bound.arguments.items())[1:]


def signature_of(cls: type) -> Any:
    """The signature of the class's constructor, without `self`."""
    from inspect import signature

    made = signature(cls.__init__)  # type: ignore[misc]
    return made.replace(parameters=list(made.parameters.values())[1:])


def new_instance(kind: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """A further instance of a singleton class, beside the one that `kind()` returns.

    For several fleets in one process, tests and sweeps: give each fleet's monitor and scraper a
    `table` of their own, and route with the stats that these return.

    Args:
        kind: A router, `RequestStatsMonitor` or `EngineStatsScraper` class.
        *args: As for `kind`.
        **kwargs: As for `kind`.

    Returns:
        The instance; nobody else is given it.

    Raises:
        RouteError: As `kind` raises.
    """
    made: _T = _type_call(kind, *args, **kwargs)
    return made
