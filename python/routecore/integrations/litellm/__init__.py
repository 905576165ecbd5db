"""LiteLLM: any strategy among the deployments of a model group, by configuration alone.

Read `hook.py` first; `calls.py` follows each call to its end.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routecore.integrations.litellm.hook import RoutecoreCallback, callback

__all__ = ["RoutecoreCallback", "callback"]


def __getattr__(name: str) -> Any:
    # Late, so that what reads requests can be imported where the host is not installed.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from routecore.integrations.litellm import hook

    return getattr(hook, name)
