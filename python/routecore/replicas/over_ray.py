"""Messages by an actor of the Ray cluster that passes them on."""

import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

try:
    import ray
    import ray.exceptions
except ModuleNotFoundError as _missing:
    raise ImportError("replicas over Ray need ray: pip install 'routecore[ray]'") from _missing

_SECONDS = 1.0
"""Longest that a call waits for the actor."""
_KEPT = 1024
"""Messages that the actor keeps for those who have not asked yet."""


class Relay:
    """The actor: keeps the last messages, and gives each router those it has not had."""

    def __init__(self) -> None:
        self._first = 0
        self._messages: deque[bytes] = deque(maxlen=_KEPT)

    def exchange(self, said: list[bytes], since: int | None) -> tuple[int, list[bytes]]:
        """Take what a router says, and give it what came since its last call."""
        for message in said:
            if len(self._messages) == _KEPT:
                self._first += 1
            self._messages.append(message)
        end = self._first + len(self._messages)
        if since is None or since > end:
            return end, []
        return end, list(self._messages)[max(0, since - self._first) :]


class RayChannel:
    """Exchanges messages with a detached actor, which the first router makes.

    Calls are made in the threads of `Replicas` and never on an event loop. Ray is not started
    here: until the process has done it, the channel is down.

    Args:
        group: Part of the actor's name.
    """

    every: float = 0.2

    def __init__(self, group: str = "default") -> None:
        self._name = f"routecore-replicas-{group}"
        self._actor: Any = None
        self._since: int | None = None
        self._waiting: deque[bytes] = deque(maxlen=64)

    def open(self) -> None:
        _check_ray()
        made = ray.remote(num_cpus=0, max_restarts=-1)(Relay)
        self._actor = made.options(
            name=self._name, namespace="routecore", lifetime="detached", get_if_exists=True
        ).remote()
        self._since, _ = self._exchange([], None)

    def send(self, message: bytes) -> None:
        self._waiting.append(message)

    def receive(self, timeout: float) -> list[bytes]:
        time.sleep(min(timeout, self.every / 2))
        self._since, found = self._exchange(self._said(), self._since)
        return found

    def close(self) -> None:
        said = self._said()
        try:
            if said and self._actor is not None:
                self._exchange(said, None)  # the good-bye
        finally:
            self._actor = None  # detached: others go on with it

    def after_fork(self) -> None:
        """In the child of a fork: Ray is the parent's."""
        self._actor = None

    def _said(self) -> list[bytes]:
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def _exchange(self, said: list[bytes], since: int | None) -> tuple[int, list[bytes]]:
        _check_ray()
        answer: Future[tuple[int, list[bytes]]] = self._actor.exchange.remote(said, since).future()
        try:
            # Not `ray.get`: that warns of a blocked loop in every thread of an async actor.
            return answer.result(_SECONDS)
        except FutureTimeout:
            raise ConnectionError(f"no answer from the actor {self._name!r} yet") from None
        except ray.exceptions.RayError as error:
            said_of_it = str(error).partition("\n")[0]
            raise ConnectionError(f"the actor {self._name!r}: {said_of_it}") from None


def _check_ray() -> None:
    # Without it, a call after the process has left Ray would start a cluster of its own.
    if not ray.is_initialized():
        raise ConnectionError("Ray is not initialised in this process")
