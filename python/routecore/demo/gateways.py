"""The live demo's gateways: one as a rule, or several routers in front of the same engines."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    EngineStatsScraper,
    RequestStatsMonitor,
    new_instance,
)
from routecore.demo import cache_events
from routecore.demo.gateway import Gateway
from routecore.routers.cache_router import CacheRouter

if TYPE_CHECKING:
    from routecore.kv_events import KVIndex


class Gateways:
    """What the demo reads of a gateway, of several together.

    Args:
        all: At least one, of the same endpoints.
    """

    def __init__(self, all: Sequence[Gateway]) -> None:
        self._all = all
        self.endpoints: list[EndpointInfo] = all[0].endpoints

    @property
    def monitor(self) -> Any:
        """The first one's: what it says of engines that fail, the others find out, too."""
        return self._all[0].monitor

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests of each engine, whoever sent them."""
        found: Counter[str] = Counter(dict.fromkeys((e.url for e in self.endpoints), 0))
        for gateway in self._all:
            found.update(gateway.in_flight)
        return dict(found)

    @property
    def decisions_us(self) -> list[float]:
        """Microseconds of every choice."""
        return [took for gateway in self._all for took in gateway.decisions_us]

    def name(self, at: int) -> str:
        """What a reader calls the endpoint of that number."""
        return self._all[0].name(at)


@contextlib.contextmanager
def installed(
    gateways: Sequence[Gateway],
    strategy: str,
    *,
    seed: int,
    index: "KVIndex | None" = None,
    replicas: str | None = None,
) -> Iterator[None]:
    """A new router, monitor and scraper for each gateway.

    Args:
        gateways: Of the same endpoints.
        strategy: Key of `ROUTERS`.
        seed: Of the first router; each next has the next.
        index: What KV events say, for strategies that read it.
        replicas: What carries their load between them; None: each knows its own.

    Raises:
        RouteError: `replicas` is no address.
        ImportError: It needs a package that is missing.
    """
    kind, infos = ROUTERS[strategy], gateways[0].endpoints
    reads_prompts = issubclass(kind, CacheRouter)
    with contextlib.ExitStack() as stack:
        for at, gateway in enumerate(gateways):
            table = EndpointTable()
            scraper = new_instance(EngineStatsScraper, infos, 0.25, table=table)
            stack.callback(scraper.close)
            monitor = new_instance(RequestStatsMonitor, 60.0, table=table)
            options: dict[str, Any] = {"seed": seed + at}
            if index is not None and reads_prompts:
                options |= {"kv_index": index, "prompt_tokens": cache_events.token_ids}
            if replicas is None:
                router = new_instance(kind, **options)
            else:
                from routecore.replicas import Replicas, seed_of

                if reads_prompts:  # all name prompts alike, and so share prefixes
                    options["hash_seed"] = seed_of(None)
                router = new_instance(kind, **options)
                shared: Any = router
                found = Replicas(replicas, table=table, group="demo", router=shared)
                stack.callback(found.close)
            gateway.use(router, monitor, scraper.get_engine_stats)
            scraper.start()
        yield
