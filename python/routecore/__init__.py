"""routecore: compiled routing strategies for Python LLM routers."""

import warnings

from routecore import _core
from routecore.errors import RouteError
from routecore.interface import RoutingInterface, SingletonABCMeta
from routecore.monitor import RequestStatsMonitor
from routecore.prefill_decode import PrefillDecodeRouter
from routecore.routers import (
    ROUTERS,
    CandidateScore,
    Explanation,
    LeastConnectionsRouter,
    PowerOfTwoRouter,
    PrefixAffinityRouter,
    RandomRouter,
    RoundRobinRouter,
    SessionAffinityRouter,
    Term,
    WeightedScoreRouter,
)
from routecore.scraper import EngineStatsScraper
from routecore.stats import EndpointInfo, EngineStats, RequestStats
from routecore.table import EndpointTable, default_table

if _core.DEBUG_BUILD:
    warnings.warn(
        "routecore was built without optimisation; rebuild with `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )

__all__ = [
    "ROUTERS",
    "CandidateScore",
    "EndpointInfo",
    "EndpointTable",
    "EngineStats",
    "EngineStatsScraper",
    "Explanation",
    "LeastConnectionsRouter",
    "PowerOfTwoRouter",
    "PrefillDecodeRouter",
    "PrefixAffinityRouter",
    "RandomRouter",
    "RequestStats",
    "RequestStatsMonitor",
    "RoundRobinRouter",
    "RouteError",
    "RoutingInterface",
    "SessionAffinityRouter",
    "SingletonABCMeta",
    "Term",
    "WeightedScoreRouter",
    "default_table",
]
