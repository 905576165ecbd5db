"""Clients that leave while their request waits: the host tells of it only to who asks."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_MESSAGES = 8  # servers may say once more that the body is over, but do not go on to


class Left(Exception):
    """The client has closed its connection."""


async def unless_left(request: Any, waiting: Awaitable[_T]) -> _T:
    """Wait for that, cancelled where the client leaves.

    Args:
        request: The host's; its body has been read. Where it cannot tell, this waits all the same.
        waiting: What waits. It runs in this task, so that what need not wait costs a task that
            never runs.

    Raises:
        Left: The client left first.
    """
    receive, task = getattr(request, "receive", None), asyncio.current_task()
    if receive is None or task is None:
        return await waiting
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        if await _disconnected(receive):
            has_left = True
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await waiting
    except asyncio.CancelledError:
        if not has_left or task.cancelling() > 1:  # somebody else wants its end
            raise
        raise Left from None
    finally:
        watching.cancel()
        if has_left:
            task.uncancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> bool:
    """Whether the client has left, once it has; False where that cannot be told."""
    with contextlib.suppress(Exception):  # of a middleware of the host's
        for _ in range(_MESSAGES):
            if (await receive())["type"] == "http.disconnect":
                return True
    return False
