"""Where an endpoint's engine publishes its events."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from routecore.endpoints.ranks import endpoint_of
from routecore.errors import RouteError


@dataclass(frozen=True)
class KVSource:
    """The event addresses of one endpoint, as in the engine's `--kv-events-config`.

    Args:
        url: The endpoint's URL, as routers know it.
        address: Address of rank 0's publisher, such as `tcp://engine-1:5557`.
        replay: Address of rank 0's `replay_endpoint`; None where the engine has none.
        ranks: Data-parallel ranks of the endpoint; 1 for an endpoint that is a rank itself. Rank r
            publishes on port + r (`inproc://`: name + `_dp<r>`).
        topic: Subscription; the empty one hears everything.
        bind: Whether to bind the address: for engines whose publisher connects.

    Raises:
        RouteError: For an address or a number of ranks that cannot be.
    """

    url: str
    address: str
    replay: str | None = None
    ranks: int = 1
    topic: str = ""
    bind: bool = False

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise RouteError(f"ranks of {self.url}: expected 1 or more, got {self.ranks}")
        for _ in self.publishers():
            pass

    def each_rank(self) -> "Iterator[KVSource]":
        """A source for each rank, of endpoints that are ranks: `url@0`, `url@1`, …"""
        for rank, address, replay in self.publishers():
            url = endpoint_of(self.url, rank)
            yield replace(self, url=url, address=address, replay=replay, ranks=1)

    def publishers(self) -> Iterator[tuple[int, str, str | None]]:
        """Rank, event address and replay address of each rank."""
        for rank in range(self.ranks):
            replay = None if self.replay is None else of_rank(self.replay, rank)
            yield rank, of_rank(self.address, rank), replay


def of_rank(address: str, rank: int) -> str:
    """The address of a rank's publisher, from that of rank 0."""
    found = re.fullmatch(r"tcp://(.+):(\d+)", address)
    if found:
        port = int(found[2]) + rank
        if port > 65535:
            raise RouteError(f"event address {address!r}: no port is left for rank {rank}")
        return f"tcp://{found[1]}:{port}"
    if not re.match(r"(inproc|ipc)://.", address):
        raise RouteError(
            f"event address {address!r}: expected tcp://host:port, ipc://path or inproc://name"
        )
    return f"{address}_dp{rank}" if rank else address


def same_place(address: str) -> str:
    """The address as it is compared: whose publisher it is, not how it is spelled."""
    found = re.fullmatch(r"tcp://(.+):(\d+)", address.strip())
    if not found:
        return address
    host = found[1].rstrip(".").lower()
    return f"tcp://{'127.0.0.1' if host in ('localhost', '[::1]') else host}:{found[2]}"
