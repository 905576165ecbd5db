"""What is said of a request that may have to wait, and the bounds."""

from typing import Literal, TypeAlias, get_args

import msgspec

from routecore.errors import RouteError
from routecore.hold.ticket import Ticket

RejectReason = Literal["requests", "tokens", "seconds"]
"""Which bound was reached: requests that wait, their prompt tokens, or seconds of waiting."""
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)


class HoldLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and rules of a hold; None: the default.

    Attributes:
        room: Share of a KV cache that requests in flight may be expected to fill, 0.99.
        look_ahead: Waiters that are tried at each end of a request, in order, 256.
        reserve_after_s: Seconds until an endpoint is kept free for the oldest, 27; sooner where
            requests stay on an endpoint for less than that on average.
        max_requests: Requests that may wait at once, 4096.
        max_tokens: Sum of their prompt tokens, 64 Mi.
        max_wait_s: The longest wait, 600.
        priority_s: Seconds of waiting that a step of priority counts for, 10.
        sessions: Header, else body field, that names the session. Then whole sessions are let in:
            a new one waits until the contexts of those that live on an endpoint leave room for its
            own, and its turns go there. None: each request is let in by itself.
        session_idle_s: Seconds without a request in flight after which a session lives no longer
            and its room is another's, 30.
    """

    room: float | None = None
    look_ahead: int | None = None
    reserve_after_s: float | None = None
    max_requests: int | None = None
    max_tokens: int | None = None
    max_wait_s: float | None = None
    priority_s: float | None = None
    sessions: str | None = None
    session_idle_s: float | None = None


class Rejected(RouteError):
    """A request that may not wait, or not any longer: answer 429 with Retry-After.

    Attributes:
        reason: The bound that was reached.
        retry_after_s: Seconds after which it may come again.
        status: 429.
    """

    retry_after_s: float

    status = 429

    def __init__(self, reason: RejectReason, retry_after_s: float) -> None:
        said = {
            "requests": "too many requests wait",
            "tokens": "the requests that wait have too many prompt tokens",
            "seconds": "the request has waited for as long as it may",
        }
        super().__init__(f"{said[reason]}; come again in {retry_after_s:g} s")
        self.reason, self.retry_after_s = reason, retry_after_s


class Go(msgspec.Struct, frozen=True):
    """The request goes to `url`, and holds a place there.

    Attributes:
        url: The endpoint.
        ticket: Its place; None if it was admitted without one.
        waited_s: Seconds that it waited.
    """

    url: str
    ticket: Ticket | None
    waited_s: float


class Wait(msgspec.Struct, frozen=True):
    """The request waits.

    Attributes:
        waiter: Its number, with which to ask again.
        ahead: Requests of its model that stand before it.
    """

    waiter: int
    ahead: int


class Reject(msgspec.Struct, frozen=True):
    """The request is rejected.

    Attributes:
        reason: The bound that was reached.
        retry_after_s: Seconds after which it may come again.
    """

    reason: RejectReason
    retry_after_s: float


Verdict: TypeAlias = Go | Wait | Reject


class HoldCounts(msgspec.Struct, frozen=True):
    """What became of the requests of a hold.

    Attributes:
        waiting: Requests that wait now.
        waiting_tokens: Their prompt tokens.
        admitted: Requests that went.
        held: Of these, those that had to wait.
        waited_s: Seconds that they waited, in all.
        rejected: Requests that were rejected, by reason.
        left: Requests that left before they could go.
    """

    waiting: int
    waiting_tokens: int
    admitted: int
    held: int
    waited_s: float
    rejected: dict[str, int]
    left: int


class Waits(msgspec.Struct, frozen=True):
    """What a request would wait for.

    Attributes:
        url: The endpoint that is chosen for it.
        in_use_tokens: What requests in flight keep in the endpoint's KV cache, or will.
        added_tokens: What the request adds to that.
        room_tokens: What they may keep there; or less, if it is kept free for somebody.
        waiting: Requests that wait already.
    """

    url: str
    in_use_tokens: float
    added_tokens: float
    room_tokens: float
    waiting: int

    def __str__(self) -> str:
        """In a line."""
        others = {0: "nobody waits", 1: "1 request waits"}
        return (
            f"waits for room at {self.url}: {self.in_use_tokens:,.0f} tokens in use, "
            f"{self.added_tokens:,.0f} added, room for {self.room_tokens:,.0f}; "
            + others.get(self.waiting, f"{self.waiting:,} requests wait")
        )


class Held(msgspec.Struct, frozen=True):
    """A request that waits. `print` it for a line.

    Attributes:
        request_id: Its id in the monitor; None where the host reports it under one of its own.
        waited_s: Seconds that it has waited so far.
        ahead: Requests of its model that stand before it.
        waits: What it waits for now; None if it goes with the next try.
        fault: Why it cannot be tried now: no endpoint is left for it, say.
        in_session: Whether it is let in as a turn of a session: then it may also wait until the
            sessions that live leave room for its own.
    """

    request_id: str | None
    waited_s: float
    ahead: int
    waits: Waits | None
    fault: str | None = None
    in_session: bool = False

    def __str__(self) -> str:
        """In a line."""
        what = "goes at the next try"
        if self.fault is not None:
            what = f"cannot be tried: {self.fault}"
        elif self.waits is not None:
            what = str(self.waits)
        elif self.in_session:
            what += ", or waits for room among the sessions that live"
        return (
            f"{self.request_id or 'a request'}, {self.waited_s:.1f} s, {self.ahead} ahead: {what}"
        )
