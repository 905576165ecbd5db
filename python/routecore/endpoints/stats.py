"""What a router knows: endpoints, what engines report, what the router itself saw."""

from collections.abc import Sequence
from typing import Any

import msgspec


class EndpointInfo(msgspec.Struct, frozen=True):
    """One engine that may be chosen.

    Attributes:
        url: Its address, and its name everywhere else.
        model_names: The models it serves.
        added_timestamp: When it was found, in seconds since the epoch.
        sleep: It answers, but its model is not loaded: never chosen.
        healthy: False for an engine that must not be chosen.
    """

    url: str
    model_names: Sequence[str] = ()
    Id: str = ""
    added_timestamp: float = 0.0
    model_label: str = ""
    sleep: bool = False
    healthy: bool = True
    pod_name: str | None = None
    service_name: str | None = None
    namespace: str | None = None
    model_info: dict[str, Any] | None = None


class EngineStats(msgspec.Struct, frozen=True):
    """What an engine last reported of itself.

    Attributes:
        num_running_requests: Requests in the engine's batch.
        num_queuing_requests: Requests that wait for it.
        gpu_prefix_cache_hit_rate: Tokens found in the prefix cache, per token asked for, 0 to 1.
        gpu_prefix_cache_hits_total: Tokens found, since the engine started.
        gpu_prefix_cache_queries_total: Tokens asked for, since the engine started.
        gpu_cache_usage_perc: Share of the KV cache in use, 0 to 1 (the engines' own name).
        active_connections: Open requests; running and queuing together unless it is given.
    """

    num_running_requests: float = 0
    num_queuing_requests: float = 0
    gpu_prefix_cache_hit_rate: float = 0.0
    gpu_prefix_cache_hits_total: float = 0
    gpu_prefix_cache_queries_total: float = 0
    gpu_cache_usage_perc: float = 0.0
    active_connections: float = -1

    def __post_init__(self) -> None:
        """Fill in `active_connections` where it was not given."""
        if self.active_connections == -1:
            running, queuing = self.num_running_requests, self.num_queuing_requests
            # Bad input, such as None, is "not known" to routers; it must reach them.
            try:
                total = running + queuing
            except TypeError:
                total = None
            msgspec.structs.force_setattr(self, "active_connections", total)


class RequestStats(msgspec.Struct, frozen=True):
    """What the router saw of an engine's requests, over the monitor's window; -1 is "not known".

    Attributes:
        qps: Requests a second.
        ttft: Mean time to the first token, in seconds.
        in_prefill_requests: Sent, and no token yet.
        in_decoding_requests: Answering now.
        finished_requests: Ended, since the monitor began.
        uptime: Seconds since the engine's first request.
        avg_decoding_length: Mean seconds from first token to end.
        avg_latency: Mean seconds from sending to end.
        avg_itl: Mean seconds between two tokens.
        num_swapped_requests: Requests an engine swapped out.
    """

    qps: float = 0
    ttft: float = -1
    in_prefill_requests: int = 0
    in_decoding_requests: int = 0
    finished_requests: int = 0
    uptime: float = 0
    avg_decoding_length: float = -1
    avg_latency: float = -1
    avg_itl: float = -1
    num_swapped_requests: int = 0
