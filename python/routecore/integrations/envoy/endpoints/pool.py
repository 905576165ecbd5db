"""The endpoints that there are now, and those among which a request may choose."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from routecore.endpoints.stats import EndpointInfo
from routecore.integrations.envoy.endpoints.address import Address

_MAX_SUBSETS = 32  # as many lists as a router keeps


class Pool:
    """Which endpoints there are, which are ready, and the subsets that gateways ask for.

    Args:
        gone: Called with the URL of an endpoint that is no more.

    Attributes:
        ready: Those that may be chosen; the same tuple until they change.
        synced: Whether the source has listed them once.
    """

    def __init__(self, gone: Callable[[str], object]) -> None:
        self.ready: tuple[EndpointInfo, ...] = ()
        self.synced: bool = False
        self._gone = gone
        self._known: dict[str, EndpointInfo] = {}  # by address
        self._ready: dict[str, EndpointInfo] = {}  # by address
        self._texts: dict[str, str] = {}  # URL → address
        self._subsets: dict[tuple[str, ...], tuple[EndpointInfo, ...]] = {}
        self._changed: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._known)

    def on_change(self, call: Callable[[], object]) -> None:
        """Call that after each change."""
        self._changed.append(call)

    def update(self, found: Mapping[Address, bool]) -> None:
        """These are all endpoints from now on, each ready or not."""
        known = {
            address.text: self._known.get(address.text) or EndpointInfo(url=address.url)
            for address in found
        }
        gone = [text for text in self._known if text not in known]
        left = [self._known[text].url for text in gone]
        ready = {
            address.text: known[address.text] for address, is_ready in found.items() if is_ready
        }
        self._known, self.synced = known, True
        if list(ready) != list(self._ready):
            self._ready, self.ready = ready, tuple(ready.values())
        self._subsets.clear()
        self._texts = {info.url: text for text, info in known.items()}
        for url in left:
            self._gone(url)
        for call in self._changed:
            call()

    def candidates(self, hint: tuple[str, ...] | None) -> tuple[EndpointInfo, ...]:
        """Those that may be chosen for a request.

        Args:
            hint: The gateway's subset, `IP:PORT` each or an IP with all of its ports; None: all.
        """
        if hint is None:
            return self.ready
        found = self._subsets.get(hint)
        if found is None:
            if len(self._subsets) >= _MAX_SUBSETS:
                del self._subsets[next(iter(self._subsets))]
            found = self._subsets[hint] = tuple(self._among(hint))
        return found

    def _among(self, hint: tuple[str, ...]) -> Iterable[EndpointInfo]:
        wanted = set(hint)
        for text, info in self._ready.items():
            if text in wanted or text.rpartition(":")[0].strip("[]") in wanted:
                yield info

    def address(self, url: str) -> str:
        """How the gateway knows an endpoint."""
        return self._texts.get(url) or url.partition("://")[2]

    def url(self, address: str) -> str | None:
        """The endpoint that the gateway means; None for one that is not known."""
        found = self._known.get(address)
        return None if found is None else found.url

    def addresses(self) -> dict[str, str]:
        """URL → URL of all endpoints, for those who hear their KV events."""
        return {info.url: info.url for info in self._known.values()}

    def urls(self) -> Iterable[Any]:
        """What to scrape."""
        return self.ready
