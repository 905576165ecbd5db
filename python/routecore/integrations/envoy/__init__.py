"""Envoy and the Kubernetes Gateway API: an endpoint picker over ext_proc, `routecore picker`.

Read `server.py` first (what runs), then `exchange.py` (one request, from its headers to its end),
`decision.py` (where it goes) and `endpoints/` (where the endpoints come from).
"""

from routecore.integrations.envoy.settings import Settings

__all__ = ["Settings"]
