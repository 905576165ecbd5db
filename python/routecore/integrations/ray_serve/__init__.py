"""Ray Serve: any strategy as the request router of a deployment, by configuration alone.

Read `router.py` first; `replica_state.py` is one replica, `outcome.py` how a request ended. Ray
hands this package to other processes by value, so nothing in it may keep state in module variables.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routecore.integrations.ray_serve.router import RoutecoreRequestRouter

__all__ = ["RoutecoreRequestRouter"]


def __getattr__(name: str) -> Any:
    # Late, so that what reads requests can be imported where the host is not installed.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from routecore.integrations.ray_serve import router

    return getattr(router, name)
