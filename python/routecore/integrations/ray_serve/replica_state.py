"""A replica of Ray Serve, and a request that it works on, as our router keeps them."""

from collections import deque
from typing import Any, Literal

from routecore.endpoints.health import Reason

PENDING: Literal["pending"] = "pending"


class ReplicaState:
    """A replica as we see it: its name, our requests on it, what others have there.

    Attributes:
        url: Its name, which stands for a URL.
        replica: Serve's object.
        open: Our requests that were sent and are not over.
        unanswered: Of these, neither accepted nor rejected yet.
        elsewhere: Requests of other routers.
        away: Whether it did not answer Serve.
    """

    replica: Any
    url: str

    __slots__ = ("away", "elsewhere", "open", "replica", "unanswered", "url")

    def __init__(self, url: str, replica: Any) -> None:
        self.url, self.replica = url, replica
        self.open: int = 0
        self.unanswered: deque[str] = deque()
        self.elsewhere: int = 0
        self.away: bool = False

    @property
    def load(self) -> int:
        """Requests on it, of everybody."""
        return self.open + self.elsewhere


class Accepted:
    """A request that a replica works on.

    Attributes:
        state: The replica's.
        token: Its name in our monitor.
        is_heard: Whether its caller's result shows how it ended.
        outcome: What that showed: a reason, None for success; unknown until then.
    """

    is_heard: bool
    is_over: bool
    state: ReplicaState
    token: str

    __slots__ = ("is_heard", "is_over", "outcome", "state", "token")

    def __init__(self, state: ReplicaState, token: str) -> None:
        self.state, self.token = state, token
        self.is_heard = self.is_over = False
        self.outcome: Reason | Literal["pending"] | None = PENDING


def put(into: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    """Add to a dict that forgets its oldest above a limit."""
    into[key] = value
    if len(into) > limit:
        del into[next(iter(into))]
