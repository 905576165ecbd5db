"""LiteLLM: any strategy among the deployments of a model group, by configuration alone.

Read `hook.py` first; `calls.py` follows each call to its end.
"""

from routecore.integrations.litellm.hook import RoutecoreCallback, callback

__all__ = ["RoutecoreCallback", "callback"]
