"""Routers that tell each other what they have in flight."""

import re

import msgspec

from routecore.errors import RouteError

_SHARE = re.compile(r"(\d+(?:\.\d+)?)(ms|s)((?::[a-z]+=[^:]+)*)")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How replayed routers tell each other of their load.

    Attributes:
        every_ms: Simulated time between two messages of a router.
        delay_ms: Until a message is heard.
        loss: Share of the messages that a router does not hear, 0 to 1.
    """

    every_ms: float
    delay_ms: float = 0.0
    loss: float = 0.0

    @classmethod
    def of(cls, text: str) -> "Share":
        """Take "200ms", "200ms:loss=0.01" or "50ms:delay=5ms:loss=0.1" apart.

        Raises:
            RouteError: The text is no such thing; says what is.
        """
        expected = f"share {text!r}: expected TIME[:delay=TIME][:loss=SHARE], as 200ms:loss=0.01"
        match = _SHARE.fullmatch(text)
        if not match:
            raise RouteError(expected)
        given = dict(part.split("=", 1) for part in match[3].split(":") if part)
        delay = _TIME.fullmatch(given.pop("delay", "0ms"))
        try:
            loss = float(given.pop("loss", "0"))
        except ValueError:
            loss = -1.0
        if given or delay is None or not 0 <= loss <= 1:
            raise RouteError(expected)
        every = _milliseconds(match)
        if not 1 <= every <= 2000:
            raise RouteError(f"share {text!r}: expected a time from 1ms to 2s")
        return cls(every_ms=every, delay_ms=_milliseconds(delay), loss=loss)

    def __str__(self) -> str:
        delay = f", heard {self.delay_ms:g} ms later" if self.delay_ms else ""
        loss = f", {100 * self.loss:g} % lost" if self.loss else ""
        return f"every {self.every_ms:g} ms{delay}{loss}"


def _milliseconds(match: re.Match[str]) -> float:
    return float(match[1]) * (1e3 if match[2] == "s" else 1.0)
