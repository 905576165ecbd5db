"""Ray Serve: any strategy as the request router of a deployment, by configuration alone.

Read `router.py` first; `seat.py` is one replica, `outcome.py` how a request ended.
"""

from routecore.integrations.ray_serve.router import RoutecoreRequestRouter

__all__ = ["RoutecoreRequestRouter"]
