"""A request from its arrival to its end, whatever that end is.

The host reports ends on success only. What never fails to happen is that the task in which the
server runs the request is done: after success, a refused connection, a reset stream or a client
that left. What is open then has failed.
"""

import asyncio
import time
import weakref
from contextvars import ContextVar
from typing import Any, Protocol


class Ends(Protocol):
    """The part of a monitor that a life reports to."""

    def on_request_failed(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The request failed or its client left."""
        ...

    def on_usage(
        self,
        engine_url: str,
        request_id: str,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """What the engine counted of a request, in tokens; before its end."""
        ...

    def count_complete(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The request was served to its end, and nothing more will be told of it."""
        ...


class Life:
    """What is known of the request that the current task serves.

    Attributes:
        body: Its parsed body, if the host showed it.
        choice: In shadow mode, the endpoint that we would have chosen last.
        shows_usage: Whether the host will show us the answer once it is complete.
        served: The attempt that ended well (endpoint, request id, time), until that is counted.
    """

    __slots__ = ("_open", "_request", "body", "choice", "served", "shows_usage")

    def __init__(self, request: Any) -> None:
        self._request = _weak(request)
        self._open: list[tuple[Ends, str, str]] = []
        self.body: Any = None
        self.choice: str | None = None
        self.shows_usage = False
        self.served: tuple[Ends, str, str, float] | None = None

    def is_of(self, request: Any) -> bool:
        """Whether this is that request's life."""
        return self._request is not None and self._request() is request

    def sent(self, monitor: Ends, url: str, request_id: str) -> None:
        """An attempt went to the endpoint; one before it, elsewhere, has failed."""
        for attempt in [a for a in self._open if a[2] == request_id and a[1] != url]:
            self._open.remove(attempt)
            monitor.on_request_failed(attempt[1], request_id, time.time())
        self._open.append((monitor, url, request_id))

    def ended(self, url: str, request_id: str) -> None:
        """The host reported the end of an attempt."""
        for at, attempt in enumerate(self._open):
            if attempt[1] == url and attempt[2] == request_id:
                del self._open[at]
                return

    def count_served(self) -> None:
        """Count the attempt that ended well, if that has waited for the answer's usage."""
        if self.served is not None:
            monitor, url, request_id, at = self.served
            self.served = None
            monitor.count_complete(url, request_id, at)

    def over(self, _task: Any = None) -> None:
        """The request is gone: what it has open has failed. Again: no change."""
        self.count_served()
        while self._open:
            monitor, url, request_id = self._open.pop()
            monitor.on_request_failed(url, request_id, time.time())


_current: ContextVar[Life | None] = ContextVar("routecore_request", default=None)


def current() -> Life | None:
    """The life of the request that this task serves, if it was followed."""
    return _current.get()


def follow(request: Any) -> Life:
    """The life of a request, begun at the first call for it."""
    life = _current.get()
    if life is not None and life.is_of(request):
        return life
    life = Life(request)
    _current.set(life)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        task.add_done_callback(life.over)
    elif _weak(request) is not None:
        weakref.finalize(request, life.over).atexit = False
    return life


def _weak(request: Any) -> "weakref.ref[Any] | None":
    try:
        return weakref.ref(request)
    except TypeError:
        return None
