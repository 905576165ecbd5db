"""Strategies that go by load and by what engines report."""

from collections.abc import Mapping
from typing import Any, Literal

from routecore.errors import RouteError
from routecore.requests.body import body_of
from routecore.routers.compiled import CompiledRouter


class RoundRobinRouter(CompiledRouter):
    """Each endpoint in turn, by URL, one counter per set of endpoints.

    Compares nothing: `explain` shows no score.

    Args:
        seed: Where the turns of a forked process go on.
    """

    strategy = "round_robin"
    needs = "nothing"

    def __init__(self, *, seed: int | None = None) -> None:
        self._build(seed)


class RandomRouter(CompiledRouter):
    """A draw; chances proportional to the endpoints' capacity.

    `explain` shows the `weight` of each.

    Args:
        endpoint_weights: URL → capacity, 1 if not named.
        seed: Makes the draws repeatable.
    """

    strategy = "random"
    needs = "nothing"

    def __init__(
        self, *, endpoint_weights: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights)


class LeastConnectionsRouter(CompiledRouter):
    """The endpoint with the fewest requests in flight; per capacity where weights are given.

    The lowest score wins. `explain` shows `in_flight` requests, and the `weight` where there is
    one.

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
    """The less loaded of two random endpoints (Mitzenmacher 2001).

    `explain` shows `in_flight` requests, and the `weight` where there is one; the lower score of
    the two that are drawn wins.

    Args:
        endpoint_weights: URL → capacity; the lesser (in flight + 1) / weight wins.
        seed: Makes the draws repeatable.
    """

    strategy = "power_of_two"

    def __init__(
        self, *, endpoint_weights: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights)


class WeightedScoreRouter(CompiledRouter):
    """The highest weighted sum of terms between 0 and 1 (llm-d's scorers).

    The highest score wins. `explain` shows every term, weighted: the columns of the table that
    `weights` names, normalised, such as `in_flight`, and three of their own:
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
        self.session_key: str | None = session_key
        self._keyed = "session" in weights
        self._build(seed, weights=weights, normalise=normalise, endpoint_weights=endpoint_weights)

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        if not self._keyed:
            return ()
        return (self.extract_session_id(request, body_of(request, request_json)),)
