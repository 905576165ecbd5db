"""Shadow mode: the host routes as before, and what we would have done is recorded and summed up.

Read `compare.py` first: one request, from both choices to its end. `moved.py` counts it where our
choice fell, `log.py` writes it down, `report.py` sums up.
"""

from routecore.integrations.shared.shadow.compare import Choice, Shadow
from routecore.integrations.shared.shadow.log import Record, ShadowLog, shadow_log
from routecore.integrations.shared.shadow.moved import MovedRequests
from routecore.integrations.shared.shadow.report import Summary, summarise

__all__ = [
    "Choice",
    "MovedRequests",
    "Record",
    "Shadow",
    "ShadowLog",
    "Summary",
    "shadow_log",
    "summarise",
]
