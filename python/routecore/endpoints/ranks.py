"""Data-parallel ranks as endpoints: `http://engine:8000@1` is rank 1 of the engine at that address.

An engine with several ranks has a KV cache and a queue in each, behind one address. vLLM and SGLang
put a request on the rank that its header names, so a router can choose among ranks as it does among
engines.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from routecore.errors import RouteError

HEADER = "X-data-parallel-rank"
"""Names the rank of a request, to vLLM and SGLang."""
MAX_RANKS = 1024
"""Ranks of an engine, at most."""

_RANKED = re.compile(r"(.+)@(\d{1,4})")


class Rank(NamedTuple):
    """Where an endpoint's requests go.

    Attributes:
        address: The engine's URL.
        rank: Its data-parallel rank; None: the engine chooses.
    """

    address: str
    rank: int | None

    @property
    def headers(self) -> dict[str, str]:
        """What a request to it has to carry: nothing where the engine chooses."""
        return {} if self.rank is None else {HEADER: str(self.rank)}


def rank_of(endpoint: str) -> Rank:
    """Take an endpoint's name apart: `url@rank`, or a URL alone."""
    found = _RANKED.fullmatch(endpoint) if "@" in endpoint else None
    if found is None:
        return Rank(endpoint, None)
    return Rank(found[1], int(found[2]))


def endpoint_of(address: str, rank: int) -> str:
    """The endpoint's name, from the engine's URL and the rank."""
    return f"{address}@{rank}"


def with_ranks(urls: Iterable[str], ranks: int) -> Iterator[str]:
    """Each engine's ranks as endpoints of their own.

    Raises:
        RouteError: The number of ranks cannot be, or a URL names a rank already.
    """
    if not 1 <= ranks <= MAX_RANKS:
        raise RouteError(f"ranks: expected from 1 to {MAX_RANKS}, got {ranks}")
    for url in urls:
        if rank_of(url).rank is not None:
            raise RouteError(f"{url!r} is a rank already: expected the engine's URL")
        yield from (endpoint_of(url, rank) for rank in range(ranks))
