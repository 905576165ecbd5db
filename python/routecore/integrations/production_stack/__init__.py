"""vLLM production-stack's router with our strategies, without a change to it.

`vllm-router … --callbacks routecore.integrations.production_stack.callbacks` is enough; see
docs/production-stack.md. The classes bear the host's names and go wherever the host's go.
"""

from typing import Any

from routecore.integrations.production_stack import install
from routecore.integrations.production_stack.disaggregated import (
    DisaggregatedPrefillOrchestratedRouter,
    DisaggregatedPrefillRouter,
)
from routecore.integrations.production_stack.monitor import RequestStatsMonitor
from routecore.integrations.production_stack.routers import (
    KvawareRouter,
    LoadAwareRouter,
    PrefixAwareRouter,
    RoundRobinRouter,
    SessionRouter,
)

__all__ = [
    "DisaggregatedPrefillOrchestratedRouter",
    "DisaggregatedPrefillRouter",
    "KvawareRouter",
    "LoadAwareRouter",
    "PrefixAwareRouter",
    "RequestStatsMonitor",
    "RoundRobinRouter",
    "SessionRouter",
]


def __getattr__(name: str) -> Any:
    # The host gets this name anew at each dynamic reload, after it has rebuilt its router: the
    # one moment at which ours can take its place again.
    if name == "callbacks":
        return install.callbacks()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
