"""The host's HTTP client, listened to: the one place that hears how each attempt ends.

The host tells its monitor "complete" for an answer with status 500, and nothing for a refused
connection. aiohttp's tracing tells both, in the task that serves the request.
"""

import time
from typing import Any

import aiohttp

from routecore.integrations.production_stack import outcome
from routecore.integrations.production_stack.request_lifecycle import Attempt, current
from routecore.integrations.shared.retry_after import seconds_of

_BUSY = (429, 503)


class TracedWrapper:
    """Stands for the host's client wrapper; each session that it hands out is traced.

    Args:
        wrapper: The host's.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._traced: Any = None

    def __call__(self) -> Any:
        """The host's client session."""
        session = self._wrapper()
        if session is not self._traced:
            configs = getattr(session, "trace_configs", None)
            if configs is not None and _trace not in configs:
                configs.append(_trace)
            self._traced = session
        return session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)


def _attempt(url: Any) -> Attempt | None:
    lifecycle = current()
    return None if lifecycle is None else lifecycle.attempt_at(str(url))


async def _started(_session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
    lifecycle = current()
    if lifecycle is not None:
        lifecycle.is_traced = True
        attempt = lifecycle.attempt_at(str(params.url))
        if attempt is not None:
            attempt.is_sent = True
            params.headers.update(attempt.headers)


async def _answered(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
    """The head of an answer is there. What says that the request failed ends it."""
    lifecycle, attempt = current(), _attempt(params.url)
    if lifecycle is None or attempt is None:
        return
    answer, now = params.response, time.time()
    attempt.answer = answer
    if answer.status in _BUSY:
        wait = seconds_of(answer.headers.get("Retry-After"), now)
        lifecycle.failed(attempt, "busy", wait)
    elif answer.status >= 400:
        lifecycle.refused(attempt, answer.status)
    elif attempt.on_answer is not None:
        attempt.on_answer()


async def _broke(_session: Any, _context: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
    lifecycle, attempt = current(), _attempt(params.url)
    if lifecycle is not None and attempt is not None:
        lifecycle.failed(attempt, outcome.of_error(params.exception))


def _made() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(_started)
    trace.on_request_end.append(_answered)
    trace.on_request_exception.append(_broke)
    trace.freeze()
    return trace


_trace = _made()


def listen(app: Any) -> None:
    """Hear the requests of the host's application. Again: no change."""
    wrapper = getattr(app.state, "aiohttp_client_wrapper", None)
    if wrapper is not None and not isinstance(wrapper, TracedWrapper):
        app.state.aiohttp_client_wrapper = TracedWrapper(wrapper)
