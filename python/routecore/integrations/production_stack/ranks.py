"""Data-parallel ranks behind the host's endpoints: each is chosen for itself.

The host knows an engine by its URL. Our strategy chooses among `url@rank`; the host is given the
URL back, and `client` adds the header by which the engine puts the request on that rank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from routecore.endpoints.ranks import endpoint_of, rank_of
from routecore.endpoints.stats import EndpointInfo
from routecore.integrations.production_stack.request_lifecycle import RequestLifecycle

_MAX_LISTS = 32
_MAX_OPEN = 1 << 16


class Ranks:
    """So many ranks of each endpoint.

    Args:
        count: Data-parallel ranks of an engine.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._lists: dict[tuple[tuple[str, str], ...], tuple[EndpointInfo, ...]] = {}

    def of(self, endpoints: Sequence[Any]) -> tuple[EndpointInfo, ...]:
        """The endpoints' ranks; the same tuple for the same endpoints."""
        known = tuple((e.url, getattr(e, "model_label", None) or "") for e in endpoints)
        found = self._lists.get(known)
        if found is None:
            if len(self._lists) >= _MAX_LISTS:
                self._lists.pop(next(iter(self._lists)), None)
            found = self._lists[known] = tuple(
                EndpointInfo(url=endpoint_of(url, rank), model_label=label)
                for url, label in known
                for rank in range(self._count)
            )
        return found

    def addresses(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """Each rank's address, from those of the engines."""
        return {
            endpoint_of(url, rank): address
            for url, address in addresses.items()
            for rank in range(self._count)
        }


def send(chosen: str, lifecycle: RequestLifecycle) -> str:
    """Remember the rank that was chosen, for what the host does next; the URL that it knows."""
    to = rank_of(chosen)
    lifecycle.rank = None if to.rank is None else chosen
    return to.address


class Placed:
    """Which rank each request of the host is on, from its report to its end.

    Ids are the clients' own, so that one may be at a URL twice at once: any end is the oldest's.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], list[str]] = {}

    def put(self, url: str, request_id: str, lifecycle: RequestLifecycle | None) -> str:
        """The request is about to be sent to the URL; the rank that was chosen for it there."""
        chosen = None if lifecycle is None else lifecycle.rank
        if lifecycle is None or chosen is None or rank_of(chosen).address != url:
            return url
        lifecycle.rank = None
        self._of.setdefault((url, request_id), []).append(chosen)
        if len(self._of) > _MAX_OPEN:
            self._of.pop(next(iter(self._of)), None)
        return chosen

    def at(self, url: str, request_id: str) -> str:
        """Where it is."""
        found = self._of.get((url, request_id)) if self._of else None
        return found[0] if found else url

    def take(self, url: str, request_id: str) -> str:
        """Where it was: it is over."""
        found = self._of.get((url, request_id)) if self._of else None
        if not found:
            return url
        if len(found) == 1:
            self._of.pop((url, request_id), None)
        return found.pop(0)
