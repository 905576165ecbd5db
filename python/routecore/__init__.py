"""routecore: compiled routing strategies for Python LLM routers."""

import warnings

from routecore import main_interpreter  # noqa: F401  # refuses others before all else

# isort: split
from routecore import _core, old_paths, process  # noqa: F401
from routecore.endpoints.health import HealthPolicy, Standing
from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.endpoints.scraper import EngineStatsScraper
from routecore.endpoints.stats import EndpointInfo, EngineStats, RequestStats
from routecore.endpoints.table import EndpointTable, default_table
from routecore.errors import RouteError
from routecore.fleet import Fleet, FleetRequest
from routecore.hold import HoldLimits, Rejected, Ticket
from routecore.interface import RoutingInterface, SingletonABCMeta
from routecore.routers import (
    ROUTERS,
    CacheAwareRouter,
    CandidateScore,
    DynamoCostRouter,
    ExpectedLatencyRouter,
    Explanation,
    LeastConnectionsRouter,
    LlmDRouter,
    LMetricRouter,
    PowerOfTwoRouter,
    PrefixAffinityRouter,
    PrefixCacheRouter,
    RandomRouter,
    RoundRobinRouter,
    SessionAffinityRouter,
    StickyUntilSaturatedRouter,
    Term,
    WeightedScoreRouter,
)
from routecore.routers.prefill_decode import PrefillDecodeRouter
from routecore.singleton import new_instance

old_paths.keep()

if _core.DEBUG_BUILD:
    warnings.warn(
        "routecore was built without optimisation; rebuild with `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )

__version__ = _core.VERSION

__all__ = [
    "ROUTERS",
    "CacheAwareRouter",
    "CandidateScore",
    "DynamoCostRouter",
    "EndpointInfo",
    "EndpointTable",
    "EngineStats",
    "EngineStatsScraper",
    "ExpectedLatencyRouter",
    "Explanation",
    "Fleet",
    "FleetRequest",
    "HealthPolicy",
    "HoldLimits",
    "LMetricRouter",
    "LeastConnectionsRouter",
    "LlmDRouter",
    "PowerOfTwoRouter",
    "PrefillDecodeRouter",
    "PrefixAffinityRouter",
    "PrefixCacheRouter",
    "RandomRouter",
    "Rejected",
    "RequestStats",
    "RequestStatsMonitor",
    "RoundRobinRouter",
    "RouteError",
    "RoutingInterface",
    "SessionAffinityRouter",
    "SingletonABCMeta",
    "Standing",
    "StickyUntilSaturatedRouter",
    "Term",
    "Ticket",
    "WeightedScoreRouter",
    "default_table",
    "new_instance",
]
