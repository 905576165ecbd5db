"""What every strategy has in common: a `RoutingInterface` over the compiled core.

Two paths, same answer. Given the mappings of our own `RequestStatsMonitor` and
`EngineStatsScraper`, a router reads the packed columns (resident path). Given anybody's dicts, it
reads the fields its strategy needs, once each (plain path).
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from routecore import _core
from routecore.endpoints.health import standing_of
from routecore.endpoints.stats import EngineStats, RequestStats
from routecore.errors import RouteError
from routecore.interface import Endpoint, RoutingInterface
from routecore.routers.explanation import CandidateScore, Explanation, Term
from routecore.routers.holding import Holding
from routecore.uncopied import Uncopied

if TYPE_CHECKING:
    import numpy as np


class CompiledRouter(Uncopied, Holding, RoutingInterface):
    """A strategy of the compiled core. Subclasses name it, its parameters and what it `needs`."""

    strategy: ClassVar[str]
    needs: ClassVar[str] = "load"
    _block_chars = 128
    _block_tokens = 16
    _hash_seed = 0
    _kv_tokens = 400_000.0
    _kv_index: Any = None
    _no_ids: Any = None
    # Whether it looks at the request, not only at the load.
    _keyed = False

    def _build(self, seed: int | None, **params: Any) -> None:
        if seed is None:
            seed = secrets.randbits(64)
        elif not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise RouteError(f"seed: expected None or an integer from 0 to 2**64 - 1, got {seed!r}")
        given = {name: value for name, value in params.items() if value is not None}
        prompts = (self._block_chars, self._block_tokens, self._hash_seed, self._kv_tokens)
        kv_index = None if self._kv_index is None else self._kv_index.core
        self._core = _core.Router(self.strategy, given, seed, prompts, kv_index, self._no_ids)
        self._route = self._core.route
        if not self._keyed and type(self).route_request is CompiledRouter.route_request:
            # Nobody overrides it: calls on the instance go straight to the core.
            vars(self)["route_request"] = self._core.route_request

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @property
    def hashing(self) -> tuple[int, int, int]:
        """What a prefix index is hashed with: the seed, bytes and token ids of a block."""
        return self._hash_seed, self._block_chars, self._block_tokens

    @property
    def shared_hashing(self) -> tuple[int, int, int] | None:
        """`hashing`, where other routers may know it; None where no prompts are read."""
        return None

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        """What identifies a request: its session, body and token ids; nothing for load alone."""
        return ()

    def _batch(self, keys: Sequence[Any]) -> tuple[Any, ...]:
        """The keys of many requests, and their token ids where the strategy asks for them."""
        return (keys,)

    def route_request(
        self,
        endpoints: Sequence[Endpoint],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        request: Any,
        request_json: Mapping[str, Any] | None = None,
    ) -> str:
        """The URL of the endpoint to send the request to.

        Args:
            endpoints: Candidates; objects with `.url`. Asleep or unhealthy ones are passed over.
                Given our monitor, an exchange in place in a list of more than 256 is seen
                within n / 16 calls; what left the list is never chosen.
            engine_stats: URL → stats with the fields the strategy reads; may be None or empty.
            request_stats: URL → request stats; best the mapping of our monitor.
            request: The request; only `.headers`, and a cached body, are read.
            request_json: Its parsed body, if the host has it.

        Raises:
            RouteError: No endpoints, or none eligible.
        """
        keys = self._keys(request, request_json)
        return self._route(endpoints, engine_stats, request_stats, *keys)

    def route_ranked(
        self,
        endpoints: Sequence[Endpoint],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        request: Any,
        request_json: Mapping[str, Any] | None = None,
        *,
        fallbacks: int = 2,
        chosen: str | None = None,
    ) -> list[str]:
        """`route_request`, and where to send the request should that endpoint fail.

        Args:
            endpoints: As for `route_request`.
            engine_stats: As for `route_request`.
            request_stats: As for `route_request`.
            request: As for `route_request`.
            request_json: As for `route_request`.
            fallbacks: How many more to name: each the strategy's choice without those before it.
                They do not count as load.
            chosen: Where the request goes, if that is known already; nothing counts as load then.

        Returns:
            URLs, the chosen one first; fewer fallbacks where there are fewer endpoints.

        Raises:
            RouteError: As `route_request`.
        """
        session, body, ids = (*self._keys(request, request_json), None, None, None)[:3]
        stats = (endpoints, engine_stats, request_stats)
        return _core.ranked(self._core, *stats, session, body, ids, chosen, fallbacks)

    def explain(
        self,
        endpoints: Sequence[Endpoint],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        request: Any,
        request_json: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """What each endpoint scores for this request and which would win; changes nothing.

        Raises:
            RouteError: As `route_request`.
        """
        keys = self._keys(request, request_json)
        url, rows = self._core.explain(endpoints, engine_stats, request_stats, *keys)
        shares: list[tuple[int, int] | None] = [None] * len(rows)
        if isinstance(request_stats, _core.ResidentRequestStats):
            known = _core.own_and_others(request_stats, [row[0] for row in rows])
            shares = shares if known is None else [(round(a), round(b)) for a, b in known]
        scores = tuple(
            CandidateScore(
                url=row_url,
                eligible=eligible,
                score=score,
                terms=tuple(Term(*t) for t in terms),
                standing=standing_of(standing),
                in_flight=parts,
            )
            for (row_url, eligible, score, terms, standing), parts in zip(rows, shares, strict=True)
        )
        waits = None
        if self._hold is not None and isinstance(request_stats, _core.ResidentRequestStats):
            asked = self._prompt(request, request_json)
            waits = self._hold.explain((endpoints, engine_stats, request_stats), asked)
        return Explanation(strategy=self.strategy, url=url, candidates=scores, waits=waits)

    def forget(self, url: str | None = None) -> None:
        """Forget what this router remembers of an endpoint's cache, or of all: what engines
        reported by KV events, and, for hosts without our monitor, what was sent there.

        What was sent there is otherwise the table's: see `EndpointTable.forget`.

        Args:
            url: The endpoint; all of them if left out.
        """
        self._core.forget(url)

    def route_batch(
        self,
        endpoints: Sequence[Endpoint],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        keys: Sequence[Any],
    ) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
        """Choose for many requests at once; each choice counts as load for the next.

        Args:
            endpoints: As for `route_request`.
            engine_stats: As for `route_request`.
            request_stats: As for `route_request`.
            keys: One per request: a session id (str), a parsed body (dict), or None.

        Returns:
            Positions in `endpoints`, one per key.

        Raises:
            RouteError: As `route_request`.
        """
        import numpy as np

        batch = self._batch(keys)
        chosen = self._core.route_batch(endpoints, engine_stats, request_stats, *batch)
        return np.frombuffer(chosen, dtype=np.uint32).copy()


class KeyedRouter(CompiledRouter):
    """A router that looks at the request, not only at the load."""

    _keyed = True
