"""Who is notified when a request ends: the holds in which others wait for room."""

import os
from typing import Protocol


class Pumped(Protocol):
    """A hold with waiters."""

    def pump(self) -> None:
        """Let those go who may."""
        ...


_WAITED_FOR: set[Pumped] = set()


def wait_for_ends(hold: Pumped, wanted: bool) -> None:
    """Tell the hold of ends, or no longer."""
    if wanted:
        _WAITED_FOR.add(hold)
    else:
        _WAITED_FOR.discard(hold)


def ended() -> None:
    """A request has ended somewhere: there may be room for others."""
    if _WAITED_FOR:
        for hold in tuple(_WAITED_FOR):
            hold.pump()


# Those who waited are the parent's.
os.register_at_fork(after_in_child=_WAITED_FOR.clear)
