"""Two engines for one request: one computes its prompt, another writes its answer."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from routecore.endpoints.stats import EngineStats, RequestStats
from routecore.errors import RouteError
from routecore.interface import RoutingInterface
from routecore.routers import ROUTERS, CompiledRouter
from routecore.uncopied import Uncopied

UNITS: dict[str, str] = {
    "prefill": "strategy of this half",
    "decode": "strategy of this half",
    "prefill_labels": "model_label of its endpoints",
    "decode_labels": "model_label of its endpoints",
}
"""What the values of the pair's own parameters are."""


class Half(Protocol):
    """`route_request` of the strategy of one half."""

    def __call__(
        self,
        endpoints: Sequence[Any],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """The URL that serves this half, among endpoints that all do.

        Raises:
            RouteError: No endpoints, or none eligible.
        """
        ...


class PrefillDecodeRouter(Uncopied, RoutingInterface):
    """Prefill where the prompt's beginning is at home, decode where the fewest requests are.

    Each half is a strategy of its own over its own endpoints, distinguished by `model_label`.

    Args:
        prefill: Strategy of the prefill half; a word of `ROUTERS`.
        decode: Strategy of the decode half; a word of `ROUTERS`.
        prefill_labels: `model_label` of the endpoints that prefill.
        decode_labels: `model_label` of the endpoints that decode.
        seed: Makes both halves repeatable.

    Attributes:
        prefill: Chooses the endpoint that computes the prompt, among endpoints that all prefill.
        decode: Chooses the endpoint that writes the answer, among endpoints that all decode.

    Raises:
        RouteError: No strategy has that word.
    """

    prefill: Half
    decode: Half
    prefill_labels: tuple[str, ...]
    decode_labels: tuple[str, ...]

    strategy: ClassVar[str] = "prefill_decode"
    needs: ClassVar[str] = "endpoints of two kinds, the prompt, and load"

    def __init__(
        self,
        *,
        prefill: str = "prefix_cache",
        decode: str = "least_connections",
        prefill_labels: Sequence[str] = ("prefill",),
        decode_labels: Sequence[str] = ("decode",),
        seed: int | None = None,
    ) -> None:
        self.prefill_labels, self.decode_labels = tuple(prefill_labels), tuple(decode_labels)
        draws = random.Random(seed)
        self._prefill = _half("prefill", prefill, draws.getrandbits(64))
        self._decode = _half("decode", decode, draws.getrandbits(64))
        self.prefill = self._prefill.route_request
        self.decode = self._decode.route_request

    def forget(self, url: str | None = None) -> None:
        """Forget what both halves remember of an endpoint's cache, or of all.

        Args:
            url: The endpoint; all of them if left out.
        """
        self._prefill.forget(url)
        self._decode.forget(url)

    def route_request(
        self,
        endpoints: Sequence[Any],
        engine_stats: Mapping[str, EngineStats] | None,
        request_stats: Mapping[str, RequestStats] | None,
        request: Any,
        request_json: Any = None,
    ) -> str:
        """One half's URL: prefill for a body with `max_tokens` 1, as production-stack sends it.

        Raises:
            RouteError: No endpoint has a label of that half.
        """
        prefills = asks_prefill(request_json)
        labels = self.prefill_labels if prefills else self.decode_labels
        half = [e for e in endpoints if getattr(e, "model_label", None) in labels]
        if not half:
            raise RouteError(
                f"{self.strategy}: no endpoint has a model_label of {', '.join(labels)}"
            )
        route = self.prefill if prefills else self.decode
        return route(half, engine_stats, request_stats, request, request_json)


def asks_prefill(request_json: Any) -> bool:
    """Whether a body is for prefill: production-stack then asks for a single token."""
    return isinstance(request_json, dict) and request_json.get("max_tokens") == 1


def _half(name: str, word: str, seed: int) -> CompiledRouter:
    if word not in ROUTERS:
        raise RouteError(f"{name}: unknown strategy {word!r}; valid: {', '.join(ROUTERS)}")
    made: CompiledRouter = type.__call__(ROUTERS[word], seed=seed)
    return made
