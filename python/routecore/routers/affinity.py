"""Strategies that send what belongs together to the same endpoint, by hash."""

from collections.abc import Mapping
from typing import Any, Literal

from routecore.errors import RouteError
from routecore.requests.body import body_of
from routecore.routers.compiled import KeyedRouter


class SessionAffinityRouter(KeyedRouter):
    """A session stays with its endpoint; requests without one go by load.

    `explain` shows the draw by which homes are found (`rendezvous`, or the share of the `ring`),
    `in_flight` requests, the `load_cap` in requests above which a home passes on, and the `weight`
    where there is one.

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
        self.session_key: str | None = session_key
        self._build(seed, method=method, load_factor=load_factor, endpoint_weights=endpoint_weights)

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        return (self.extract_session_id(request, body_of(request, request_json)),)


class PrefixAffinityRouter(KeyedRouter):
    """Equal prompt heads go to the same endpoint, without an index and under a load bound.

    `explain` shows the draw by which homes are found (`rendezvous`), `in_flight` requests, the
    `load_cap` in requests above which a home passes on, and the `weight` where there is one.

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

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        return None, body_of(request, request_json)
