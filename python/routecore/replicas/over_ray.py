"""Messages by an actor of the Ray cluster that passes them on."""

from collections import deque
from typing import Any

try:
    import ray
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
        if not ray.is_initialized():
            raise ConnectionError("Ray is not initialised in this process yet")
        made = ray.remote(num_cpus=0, max_restarts=-1)(Relay)
        self._actor = made.options(
            name=self._name, namespace="routecore", lifetime="detached", get_if_exists=True
        ).remote()
        self._since, _ = ray.get(self._actor.exchange.remote([], None), timeout=10 * _SECONDS)

    def send(self, message: bytes) -> None:
        self._waiting.append(message)

    def receive(self, timeout: float) -> list[bytes]:
        import time

        time.sleep(min(timeout, self.every / 2))
        said = [self._waiting.popleft() for _ in range(len(self._waiting))]
        call = self._actor.exchange.remote(said, self._since)
        self._since, found = ray.get(call, timeout=_SECONDS)
        return list(found)

    def close(self) -> None:
        self._actor = None  # detached: others go on with it

    def after_fork(self) -> None:
        """In the child of a fork: Ray is the parent's."""
        self._actor = None
