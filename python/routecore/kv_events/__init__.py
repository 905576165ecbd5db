"""What engines hold, by their own KV-cache events.

`KVEventSubscriber` hears the engines and keeps a `KVIndex`; `PromptTokens` turns request bodies
into the token ids that the index is asked with. Needs `pip install 'routecore[kv-events]'`.
"""

from typing import TYPE_CHECKING, Any

from routecore.kv_events.index import KVIndex
from routecore.kv_events.source import KVSource
from routecore.kv_events.tokens import PromptTokens

if TYPE_CHECKING:
    from routecore.kv_events.subscriber import KVEventSubscriber

__all__ = ["KVEventSubscriber", "KVIndex", "KVSource", "PromptTokens"]


def __getattr__(name: str) -> Any:
    # Sockets only for those who listen: the index alone works without pyzmq.
    if name == "KVEventSubscriber":
        from routecore.kv_events.subscriber import KVEventSubscriber

        return KVEventSubscriber
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
