"""Waiting for a place: on an event loop, or in a thread."""

import itertools
import threading
from typing import Any

from routecore.hold.queue import Hold, Waiter
from routecore.hold.verdicts import Go

_NUMBERS = itertools.count()


def outcome_of(waiter: Waiter) -> Go:
    """Where the request goes.

    Raises:
        Rejected: It may not wait, or not any longer.
        Exception: What its turn met: no endpoint, or a fault of the host's own.
    """
    if isinstance(waiter.outcome, Go):
        return waiter.outcome
    assert waiter.outcome is not None
    raise waiter.outcome


async def acquire(
    hold: Hold, waiter: Waiter, keys: tuple[Any, ...], priority: float, patience: float | None
) -> Go:
    """Wait on the running loop. Cancelled, it leaves nothing behind."""
    import asyncio  # not needed by who only routes

    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(woken.set)
        except RuntimeError:  # the loop is closed: nobody will ever go
            hold.leave(waiter)

    waiter.wake = wake
    try:
        hold.enter(waiter, keys, priority, patience)
        while waiter.outcome is None:
            try:
                await asyncio.wait_for(woken.wait(), hold.pause(waiter))
            except TimeoutError:
                hold.look(waiter)
        return outcome_of(waiter)
    except asyncio.CancelledError:
        hold.leave(waiter)
        raise


def acquire_sync(
    hold: Hold, waiter: Waiter, keys: tuple[Any, ...], priority: float, patience: float | None
) -> Go:
    """Wait in this thread."""
    woken = threading.Event()
    waiter.wake = woken.set
    try:
        hold.enter(waiter, keys, priority, patience)
        while waiter.outcome is None:
            if not woken.wait(hold.pause(waiter)):
                hold.look(waiter)
        return outcome_of(waiter)
    except KeyboardInterrupt:
        hold.leave(waiter)
        raise


def new_id() -> str:
    """An id for a request that the host has no name for."""
    return f"routecore-{next(_NUMBERS)}"
