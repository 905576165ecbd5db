"""What carries messages from each router to all others."""

from typing import Protocol


class Channel(Protocol):
    """Carries messages between the routers of a group; may lose, double and reorder them.

    Called from one thread each: `receive` from one, `send` from another. An exception means that
    the channel is down: it is opened anew, later and from both threads' point of view at once.
    """

    every: float
    """Seconds between two messages of a router, at least."""

    def open(self) -> None:
        """Connect, or connect anew. Waits for no longer than a second."""

    def send(self, message: bytes) -> None:
        """Hand a message to all others. Waits for no longer than a second."""

    def receive(self, timeout: float) -> list[bytes]:
        """The messages that came, after a wait of up to `timeout` seconds if there are none."""

    def close(self) -> None:
        """Let go of all connections; may be called at any time, and twice."""
