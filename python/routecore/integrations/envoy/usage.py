"""The engine's count of tokens, out of an answer that passes by in pieces."""

from routecore.requests.usage import Usage, usage_of

_HEAD, _TAIL = 16_384, 16_384
_MOST = 1 << 20  # bytes of an answer in one piece that is looked at


class Passing:
    """Keeps of an answer what may tell its usage: of a stream both ends, else all of it.

    Args:
        streams: Whether it is a stream of events.

    Attributes:
        streams: As given.
        begun: Whether anything came.
    """

    def __init__(self, streams: bool) -> None:
        self.streams: bool = streams
        self.begun: bool = False
        self._kept = bytearray()
        self._cut = False

    def feed(self, piece: memoryview) -> None:
        """The next piece."""
        self.begun = self.begun or len(piece) > 0
        self._kept += piece
        most = 2 * (_HEAD + _TAIL) if self.streams else _MOST
        if len(self._kept) > most:
            if not self.streams:
                self._cut = True
            del self._kept[_HEAD:-_TAIL]

    def usage(self) -> Usage | None:
        """What it reported."""
        return None if self._cut else usage_of(self._kept)
