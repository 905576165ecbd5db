"""Ray Serve: any strategy as the request router of a deployment, by configuration alone.

Read `router.py` first; `replica_state.py` is one replica, `outcome.py` how a request ended. Ray
hands this package to other processes by value, so nothing in it may keep state in module variables.
"""

from routecore.integrations.ray_serve.router import RoutecoreRequestRouter

__all__ = ["RoutecoreRequestRouter"]
