"""How a call of Ray Serve ended: its router learns when, its caller alone how."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from routecore.endpoints.health import Reason

# By name: Serve's own are in private places, and a replica's come wrapped.
_LEFT = frozenset(("TaskCancelledError", "RequestCancelledError", "CancelledError"))
_BUSY = frozenset(("BackPressureError",))
_GONE = frozenset(
    ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError")
)
_SERVES: tuple[tuple[Reason, frozenset[str]], ...] = (
    ("client", _LEFT),
    ("busy", _BUSY),
    ("broken", _GONE),
)
_END = (StopIteration, StopAsyncIteration)
_UNARY, _STREAM = (("get_async", "get"), ("__anext__", "__next__"))


def reason_of(error: BaseException) -> Reason | None:
    """The reason of a call that raised, as `on_request_failed` takes it; None: it went well.

    An exception of the deployment's own with a status of 400 to 499 is its word to the client.
    """
    if isinstance(error, _END):
        return None
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "client"
    if isinstance(error, TimeoutError):
        return "client"  # the caller's own patience, as it asked for the result
    cause = getattr(error, "cause", None)
    links = (error, cause) if isinstance(cause, BaseException) else (error,)
    names = {kind.__name__ for link in links for kind in type(link).__mro__}
    for reason, known in _SERVES:
        if not known.isdisjoint(names):
            return reason
    status = getattr(links[-1], "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return "busy" if status == 429 else "client"
    return "busy" if status == 503 else "status"


def listen(result: Any, report: Callable[[Reason | None], None]) -> bool:
    """Hear what the caller of a result learns: at its end, once, a reason or None for success.

    Args:
        result: Serve's; what its caller asks goes through the same methods as before.
        report: Called in whatever thread the caller asks from.

    Returns:
        Whether it can be heard.
    """
    streams = getattr(result, "_is_streaming", None)
    if not isinstance(streams, bool):
        return False
    waits, asks = _STREAM if streams else _UNARY
    waited, asked = getattr(result, waits, None), getattr(result, asks, None)
    if waited is None or asked is None:
        return False

    @contextmanager
    def reporting() -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            report(reason_of(error))
            raise
        if not streams:
            report(None)

    @wraps(waited)
    async def wait(*args: Any, **kwargs: Any) -> Any:
        with reporting():
            return await waited(*args, **kwargs)

    @wraps(asked)
    def ask(*args: Any, **kwargs: Any) -> Any:
        with reporting():
            return asked(*args, **kwargs)

    try:
        setattr(result, waits, wait)
        setattr(result, asks, ask)
    except AttributeError:
        return False
    return True
