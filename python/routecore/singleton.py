"""One instance per class, as the documented page has it, and the way to a second one."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from routecore.errors import RouteError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_type_call: Any = type.__call__
"""Constructs an instance as any class would, past a metaclass's own call."""

_made_with: dict[type, tuple[object, tuple[Any, ...], dict[str, Any]]] = {}
"""Class → its instance, and what that was constructed with."""


class SingletonType(type):
    """A metaclass whose classes have one instance each, in the registry of the metaclass."""

    _instances: ClassVar[dict[type, Any]]
    # Re-entrant, because a constructor may ask for another singleton.
    _lock: ClassVar[Any]

    # Type checkers would take every class for what this returns instead of for itself.
    if not TYPE_CHECKING:

        def __call__(cls, *args, **kwargs):
            """Return the class's instance, made from the arguments if there is none yet."""
            found = type(cls)._instances.get(cls)
            if found is None:
                with type(cls)._lock:
                    found = type(cls)._instances.get(cls)
                    if found is None:
                        found = super().__call__(*args, **kwargs)
                        type(cls)._instances[cls] = found
                        _made_with[cls] = (found, args, kwargs)
                        return found
            if args or kwargs:
                _check_same(cls, found, args, kwargs, cls.__module__.startswith("routecore."))
            return found

        @property
        def __signature__(cls):
            """What the constructor takes: without this, `help` shows the metaclass's call."""
            return signature_of(cls)


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
    warnings.warn(reason, RuntimeWarning, stacklevel=3)


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
