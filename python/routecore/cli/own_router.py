"""A user's own router in a replay: what it raises becomes one line that says where."""

import inspect
import traceback
from typing import Any

from routecore.errors import RouteError

_CALL = "route_request(endpoints, engine_stats, request_stats, request)"


class OwnRouterError(RouteError):
    """A router of the user's raised; what it raised is the cause."""


def guarded(word: str, router: Any) -> Any:
    """The router, its errors named by it.

    Args:
        word: `module:Class`, as the user wrote it.
        router: The class, or an object.

    Raises:
        RouteError: It is no router.
    """
    if not callable(getattr(router, "route_request", None)):
        kind = type(router).__name__
        raise RouteError(f"{word}: expected a class with {_CALL}, got a {kind} without")

    class Guarded:
        """Made anew for each run, as the class itself would be."""

        def __init__(self) -> None:
            self._router: Any
            try:
                self._router = router() if inspect.isclass(router) else router
            except Exception as error:
                raise OwnRouterError(
                    f"{word}() raised {_wording(error)}; the replay makes it without arguments"
                ) from error

        def __getattr__(self, name: str) -> Any:
            return getattr(self._router, name)

        def route_request(self, *args: Any) -> Any:
            try:
                return self._router.route_request(*args)
            except Exception as error:
                raise OwnRouterError(
                    f"route_request of {word} raised {_wording(error)} (--verbose shows all of it)"
                ) from error

    return Guarded


def _wording(error: Exception) -> str:
    """The error, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is ours; a call that never began has none of its own.
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""
    return f"{error!r}{where}"
