"""The host's session ring, point for point, so that taking us in moves no session."""

from bisect import bisect_right
from collections.abc import Set
from hashlib import md5

# As uhashring's default ring: 160 points an endpoint, md5 of "url-n" as a 128-bit number.
_POINTS = 160
_SPARE = 256  # endpoints kept beyond those in use: failed over, or of another model


def _number(text: str) -> int:
    digest = md5(text.encode(errors="surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest)


class SessionRing:
    """Session id → endpoint; the owner is the first point strictly after the session's own.

    One ring holds the endpoints of all models: walking past those that may not be chosen now
    gives what a ring of the others alone would, without building it anew.
    """

    def __init__(self) -> None:
        self._points: list[int] = []
        self._owners: dict[int, str] = {}
        self._known: set[str] = set()

    def owner(self, session: str, urls: Set[str]) -> str:
        """The endpoint of a session, out of `urls`.

        Raises:
            ValueError: `urls` is empty.
        """
        if not urls <= self._known:
            self._take_in(urls)
        points = self._points
        at = bisect_right(points, _number(session))
        for step in range(at, at + len(points)):
            url = self._owners[points[step % len(points)]]
            if url in urls:
                return url
        raise ValueError("session: needs at least one endpoint")

    def _take_in(self, urls: Set[str]) -> None:
        if len(self._known) > len(urls) + _SPARE:
            self._points, self._owners, self._known = [], {}, set()
        new = {_number(f"{url}-{n}"): url for url in urls - self._known for n in range(_POINTS)}
        self._known |= urls
        self._owners |= new
        self._points += sorted(new)
        self._points.sort()  # merges two sorted runs
