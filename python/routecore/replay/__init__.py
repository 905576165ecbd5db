"""Trace replay: which strategy, and how much would it gain, on my traffic and my fleet?"""

from routecore.replay.columns import Trace
from routecore.replay.comparison import Comparison, compare
from routecore.replay.differences import Difference, difference, knee
from routecore.replay.result import PerRequest, ReplayResult, Settings, Spread
from routecore.replay.runner import PROFILES, parse_event, run
from routecore.replay.share import Share
from routecore.replay.traces import FORMATS, read_trace
from routecore.replay.workloads import WORKLOADS, generate

__all__ = [
    "FORMATS",
    "PROFILES",
    "WORKLOADS",
    "Comparison",
    "Difference",
    "PerRequest",
    "ReplayResult",
    "Settings",
    "Share",
    "Spread",
    "Trace",
    "compare",
    "difference",
    "generate",
    "knee",
    "parse_event",
    "read_trace",
    "run",
]
