"""What the process's end and its forks mean here: threads stop, and start anew in the child."""

import atexit
import os
import threading
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from routecore import _core

_EXIT_SECONDS = 10.0
"""Longest that the exit waits for threads that are in the compiled core."""


class Background(Protocol):
    """Something with a thread of its own."""

    def _at_exit(self) -> None:
        """Stop the thread, and wait for it no longer than it needs."""

    def _after_fork(self) -> None:
        """In the child, where the thread is gone: start anew, or forget what it kept fresh."""


_backgrounds: WeakSet[Background] = WeakSet()
_locks: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def watch(background: Background) -> None:
    """Notify it of the process's end and of forks, for as long as it lives."""
    _backgrounds.add(background)


def renew_lock(owner: Any, name: str, kind: Any = threading.Lock) -> None:
    """Give the owner a new lock in the child of a fork: a thread of the parent may have held it.

    Args:
        owner: The object, class or module that has the lock.
        name: Its attribute.
        kind: What makes a new one.
    """
    _locks.setdefault(owner, {})[name] = kind


def _exit() -> None:
    for background in list(_backgrounds):
        with suppress(Exception):
            background._at_exit()
    _core.leave_interpreter(_EXIT_SECONDS)


def _in_child() -> None:
    _core.after_fork_in_child()
    for owner, kinds in list(_locks.items()):
        for name, kind in kinds.items():
            setattr(owner, name, kind())
    for background in list(_backgrounds):
        with suppress(Exception):
            background._after_fork()


# Handlers run last in, first out: those of hosts that import this module run before.
atexit.register(_exit)
os.register_at_fork(
    before=_core.before_fork,
    after_in_parent=_core.after_fork_in_parent,
    after_in_child=_in_child,
)
