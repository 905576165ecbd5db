"""One class per strategy, each a `RoutingInterface` over the compiled core.

Two paths, same answer. Given the mappings of our own `RequestStatsMonitor` and
`EngineStatsScraper`, a router reads the packed columns (resident path). Given anybody's dicts, it
reads the fields its strategy needs, once each (plain path).
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from routecore import _core
from routecore.errors import RouteError
from routecore.interface import Endpoint, RoutingInterface
from routecore.stats import EngineStats, RequestStats

if TYPE_CHECKING:
    import numpy as np


class Term(msgspec.Struct, frozen=True):
    """One part of a score."""

    name: str
    value: float
    unit: str


class CandidateScore(msgspec.Struct, frozen=True):
    """What one endpoint scored; `score` is NaN where the strategy compares nothing."""

    url: str
    eligible: bool
    score: float
    terms: tuple[Term, ...]


class Explanation(msgspec.Struct, frozen=True):
    """Why the next request would go where it goes."""

    strategy: str
    url: str
    candidates: tuple[CandidateScore, ...]


class CompiledRouter(RoutingInterface):
    """A strategy of the compiled core. Subclasses name it, its parameters and what it `needs`."""

    strategy: ClassVar[str]
    needs: ClassVar[str] = "load"
    _block_chars = 128
    # Whether it looks at the request, not only at the load.
    _keyed = False

    def _build(self, seed: int | None, **params: Any) -> None:
        if seed is None:
            seed = secrets.randbits(64)
        elif not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise RouteError(f"seed: expected None or an integer from 0 to 2**64 - 1, got {seed!r}")
        given = {name: value for name, value in params.items() if value is not None}
        self._core = _core.Router(self.strategy, given, seed, self._block_chars)
        self._route = self._core.route
        if not self._keyed and type(self).route_request is CompiledRouter.route_request:
            # Nobody overrides it: calls on the instance go straight to the core.
            vars(self)["route_request"] = self._core.route_request

    def _keys(self, request: Any, request_json: Any) -> tuple[str | None, Any]:
        """The session and the body that identify a request: neither, for load alone."""
        return None, None

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
        session, body = self._keys(request, request_json)
        return self._route(endpoints, engine_stats, request_stats, session, body)

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
        session, body = self._keys(request, request_json)
        url, rows = self._core.explain(endpoints, engine_stats, request_stats, session, body)
        scores = tuple(
            CandidateScore(
                url=row_url, eligible=eligible, score=score, terms=tuple(Term(*t) for t in terms)
            )
            for row_url, eligible, score, terms in rows
        )
        return Explanation(strategy=self.strategy, url=url, candidates=scores)

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

        chosen = self._core.route_batch(endpoints, engine_stats, request_stats, keys)
        return np.frombuffer(chosen, dtype=np.uint32).copy()


class _KeyedRouter(CompiledRouter):
    """A router that looks at the request, not only at the load."""

    _keyed = True


def _body_of(request: Any, request_json: Any) -> Any:
    """The parsed body: the host's, or the request's cached bytes; None if neither is there."""
    if request_json is not None:
        return request_json
    cached = getattr(request, "_body", None)
    if not isinstance(cached, (bytes, bytearray)):
        return None
    try:
        return msgspec.json.decode(cached)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return json.loads(cached)  # takes the lone surrogates that msgspec refuses
    except (ValueError, RecursionError):
        return None


class RoundRobinRouter(CompiledRouter):
    """Each endpoint in turn, by URL, one counter per set of endpoints."""

    strategy = "round_robin"
    needs = "nothing"

    def __init__(self, *, seed: int | None = None) -> None:
        self._build(seed)


class RandomRouter(CompiledRouter):
    """A draw; chances proportional to `endpoint_weights` (URL → capacity, 1 if not named)."""

    strategy = "random"
    needs = "nothing"

    def __init__(
        self, *, endpoint_weights: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights)


class LeastConnectionsRouter(CompiledRouter):
    """The endpoint with the fewest requests in flight; per capacity where weights are given.

    Args:
        endpoint_weights: URL → capacity; the least (in flight + 1) / weight wins.
        ties: "random", or "first" as Python's `min()` has it.
        seed: Makes ties repeatable.
    """

    strategy = "least_connections"

    def __init__(
        self,
        *,
        endpoint_weights: Mapping[str, float] | None = None,
        ties: Literal["random", "first"] = "random",
        seed: int | None = None,
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights, ties=ties)


class PowerOfTwoRouter(CompiledRouter):
    """The less loaded of two random endpoints (Mitzenmacher 2001)."""

    strategy = "power_of_two"

    def __init__(
        self, *, endpoint_weights: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights)


class WeightedScoreRouter(CompiledRouter):
    """The highest weighted sum of terms between 0 and 1 (llm-d's scorers).

    Terms are the columns of the table, normalised, and three of their own:
    `active_request`: (max - r) / max, r the requests in flight; 1 for an idle endpoint.
    `load_aware`: 0.5 * (1 - min(w, 128) / 128), w the requests waiting in the engine.
    `session`: 1 for the rendezvous home of the request's session, 0 for all others.

    Args:
        weights: Term → weight ≥ 0.
        normalise: "min_max" among the candidates, or "absolute"; for columns alone.
        session_key: Header, else body key, that names the session; read for the term `session`.
        endpoint_weights: URL → factor on its score, for unequal hardware.
        seed: Makes ties repeatable.
    """

    strategy = "weighted_score"
    needs = "load and the stats that its weights name; a session for the term session"

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        normalise: Literal["min_max", "absolute"] = "min_max",
        session_key: str = "x-session-id",
        endpoint_weights: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        if weights is None:
            weights = {"num_queuing_requests": 2.0, "gpu_cache_usage_perc": 2.0, "in_flight": 1.0}
        if not isinstance(weights, Mapping):
            kind = type(weights).__name__
            raise RouteError(f"weights: expected a dict of term → weight, got {kind}")
        self.session_key = session_key
        self._keyed = "session" in weights
        self._build(seed, weights=weights, normalise=normalise, endpoint_weights=endpoint_weights)

    def _keys(self, request: Any, request_json: Any) -> tuple[str | None, Any]:
        if not self._keyed:
            return None, None
        return self.extract_session_id(request, _body_of(request, request_json)), None


class SessionAffinityRouter(_KeyedRouter):
    """A session stays with its endpoint; requests without one go by load.

    Args:
        session_key: Header, else body key, that names the session.
        method: "rendezvous" hashing, or a "ring" of 160 points an endpoint.
        load_factor: A home above this times the mean load passes the session on; None: never.
        endpoint_weights: URL → capacity; sessions and bound are in proportion to it.
        seed: Makes the choice of requests without session repeatable.
    """

    strategy = "session_affinity"
    needs = "a session id; load without one or with a load_factor"

    def __init__(
        self,
        *,
        session_key: str = "x-session-id",
        method: Literal["rendezvous", "ring"] = "rendezvous",
        load_factor: float | None = None,
        endpoint_weights: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self.session_key = session_key
        self._build(seed, method=method, load_factor=load_factor, endpoint_weights=endpoint_weights)

    def _keys(self, request: Any, request_json: Any) -> tuple[str | None, Any]:
        return self.extract_session_id(request, _body_of(request, request_json)), None


class PrefixAffinityRouter(_KeyedRouter):
    """Equal prompt heads go to the same endpoint, without an index and under a load bound.

    Args:
        load_factor: A home above this times the mean load passes the prompt on; at least 1.
        block_chars: Bytes of the first key segment; each further one doubles the depth.
        endpoint_weights: URL → capacity; prompts and bound are in proportion to it.
        seed: Makes the choice of requests without prompt repeatable.
    """

    strategy = "prefix_affinity"
    needs = "the prompt, and load"

    def __init__(
        self,
        *,
        load_factor: float = 1.25,
        block_chars: int = 128,
        endpoint_weights: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        if not isinstance(block_chars, int) or not 16 <= block_chars <= 65536:
            raise RouteError(
                f"block_chars: expected an integer from 16 to 65536, got {block_chars!r}"
            )
        self._block_chars = block_chars
        self._build(seed, load_factor=load_factor, endpoint_weights=endpoint_weights)

    def _keys(self, request: Any, request_json: Any) -> tuple[str | None, Any]:
        return None, _body_of(request, request_json)


ROUTERS: dict[str, type[CompiledRouter]] = {
    router.strategy: router
    for router in (
        RoundRobinRouter,
        RandomRouter,
        LeastConnectionsRouter,
        PowerOfTwoRouter,
        WeightedScoreRouter,
        SessionAffinityRouter,
        PrefixAffinityRouter,
    )
}
"""Strategy word → class."""

UNITS: dict[str, str] = {
    "block_chars": "bytes",
    "endpoint_weights": "URL → capacity, 1 if not named",
    "load_factor": "times the mean load",
    "method": "rendezvous or ring",
    "normalise": "min_max or absolute",
    "seed": "integer",
    "session_key": "header or body key",
    "ties": "random or first",
    "weights": "term → weight ≥ 0; None: queuing 2, KV usage 2, in flight 1",
}
"""Parameter → the unit of its values, or what they are."""
