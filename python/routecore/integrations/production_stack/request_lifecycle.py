"""A request from its arrival to its end, whatever that end is.

The host reports ends on success only, and takes an error's answer for one. `client` hears what
became of each attempt. What never fails to happen is that the task in which the server runs the
request is done: after success, a refused connection, a reset stream or a client that left. What
is open then has ended with it.
"""

import asyncio
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from routecore.endpoints.health import Reason
from routecore.integrations.production_stack import outcome
from routecore.integrations.shared.shadow import Choice


class Ends(Protocol):
    """The part of a monitor that a lifecycle reports to."""

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The first token came back."""
        ...

    def on_request_complete(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The answer was passed on."""
        ...

    def on_request_failed(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        reason: Reason = "unknown",
        retry_after: float | None = None,
    ) -> None:
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

    def count_complete(
        self, engine_url: str, request_id: str, timestamp: float, status: int | None = None
    ) -> None:
        """The request was answered to its end, and nothing more will be reported of it."""
        ...


class Attempt:
    """A request that went to one endpoint and whose end has not been reported.

    Attributes:
        monitor: Whom to tell.
        url: The endpoint, as the host names it.
        request_id: The host's.
        is_sent: Whether the HTTP client has begun with it.
        answer: The HTTP client's answer, once its head is there.
        on_answer: Called when that is a good one.
        headers: What the request has to carry to be put on the rank that was chosen for it.
    """

    monitor: Ends
    request_id: str
    url: str

    __slots__ = ("answer", "headers", "is_sent", "monitor", "on_answer", "request_id", "url")

    def __init__(self, monitor: Ends, url: str, request_id: str) -> None:
        self.monitor, self.url, self.request_id = monitor, url, request_id
        self.is_sent: bool = False
        self.answer: Any = None
        self.on_answer: Callable[[], None] | None = None
        self.headers: dict[str, str] = {}


class RequestLifecycle:
    """What is known of the request that the current task serves.

    Attributes:
        body: Its parsed body, if the host showed it.
        choice: In shadow mode, what we would have chosen last.
        rank: The data-parallel rank that was chosen last, until it is reported as sent.
        shows_usage: Whether the host will show us the answer once it is complete.
        served: The attempt that ended well (endpoint, request id, time), until that is counted.
        is_traced: Whether the HTTP client tells what becomes of its attempts.
    """

    is_traced: bool
    shows_usage: bool

    __slots__ = (
        "_open",
        "_request",
        "body",
        "choice",
        "is_traced",
        "rank",
        "served",
        "shows_usage",
    )

    def __init__(self, request: Any) -> None:
        self._request = _weak(request)
        self._open: list[Attempt] = []
        self.body: Any = None
        self.choice: Choice | None = None
        self.rank: str | None = None
        self.shows_usage = self.is_traced = False
        self.served: tuple[Ends, str, str, float] | None = None

    def is_of(self, request: Any) -> bool:
        """Whether this is that request's lifecycle."""
        return self._request is not None and self._request() is request

    def sent(self, monitor: Ends, url: str, request_id: str) -> Attempt:
        """An attempt goes to the endpoint; one before it, elsewhere, has failed."""
        for attempt in [a for a in self._open if a.request_id == request_id and a.url != url]:
            self.failed(attempt, "unknown")
        made = Attempt(monitor, url, request_id)
        self._open.append(made)
        return made

    def attempt_at(self, address: str) -> Attempt | None:
        """The open attempt that a request to the address belongs to."""
        for attempt in reversed(self._open):
            base = attempt.url.rstrip("/")
            if address.startswith(base) and address[len(base) : len(base) + 1] in ("", "/", "?"):
                return attempt
        # The client spells addresses its own way: a default port, capitals.
        return self._open[0] if len(self._open) == 1 else None

    def failed(self, attempt: Attempt, reason: Reason, retry_after: float | None = None) -> None:
        """The attempt is over. What the host may still say of it changes nothing."""
        self._close(attempt)
        attempt.monitor.on_request_failed(
            attempt.url, attempt.request_id, time.time(), reason, retry_after
        )

    def refused(self, attempt: Attempt, status: int) -> None:
        """The attempt was answered with an error status, and is over."""
        self._close(attempt)
        attempt.monitor.count_complete(attempt.url, attempt.request_id, time.time(), status)

    def _close(self, attempt: Attempt) -> None:
        if attempt in self._open:
            self._open.remove(attempt)

    def ended(self, url: str, request_id: str) -> Attempt | None:
        """The host reported the end of an attempt; gives that, if it was open."""
        for at, attempt in enumerate(self._open):
            if attempt.url == url and attempt.request_id == request_id:
                return self._open.pop(at)
        return None

    def count_served(self) -> None:
        """Count the attempt that ended well, if that has waited for the answer's usage."""
        if self.served is not None:
            monitor, url, request_id, at = self.served
            self.served = None
            monitor.count_complete(url, request_id, at)

    def over(self, _task: Any = None) -> None:
        """The request is gone, and what it has open with it. Again: no change."""
        self.count_served()
        while self._open:
            attempt = self._open[-1]
            self.failed(attempt, self._reason(attempt))

    def _reason(self, attempt: Attempt) -> Reason:
        if attempt.answer is not None:
            return outcome.of_cut(attempt.answer)
        # One that was chosen and never sent says nothing of its engine.
        return "client" if self.is_traced and not attempt.is_sent else "unknown"


_current: ContextVar[RequestLifecycle | None] = ContextVar("routecore_request", default=None)


def current() -> RequestLifecycle | None:
    """The lifecycle of the request that this task serves, if it was followed."""
    return _current.get()


def follow(request: Any) -> RequestLifecycle:
    """The lifecycle of a request, begun at the first call for it."""
    lifecycle = _current.get()
    if lifecycle is not None and lifecycle.is_of(request):
        return lifecycle
    lifecycle = RequestLifecycle(request)
    _current.set(lifecycle)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        task.add_done_callback(lifecycle.over)
    elif _weak(request) is not None:
        weakref.finalize(request, lifecycle.over).atexit = False
    return lifecycle


def _weak(request: Any) -> "weakref.ref[Any] | None":
    try:
        return weakref.ref(request)
    except TypeError:
        return None
