"""Requests that wait at the router until the endpoint chosen for them has room in its KV cache."""

from routecore.hold.queue import Hold
from routecore.hold.ticket import Ticket
from routecore.hold.verdicts import (
    REJECT_REASONS,
    Go,
    Held,
    HoldCounts,
    HoldLimits,
    Reject,
    Rejected,
    RejectReason,
    Verdict,
    Wait,
    Waits,
)

__all__ = [
    "REJECT_REASONS",
    "Go",
    "Held",
    "Hold",
    "HoldCounts",
    "HoldLimits",
    "Reject",
    "RejectReason",
    "Rejected",
    "Ticket",
    "Verdict",
    "Wait",
    "Waits",
]
