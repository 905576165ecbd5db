"""Routers and their factory: the shapes of the host's, with the plainest rules inside."""

import abc
from collections import Counter
from typing import Any

from vllm_router.utils import SingletonABCMeta


class RoutingInterface(metaclass=SingletonABCMeta):
    def _qps_routing(self, endpoints: Any, request_stats: Any) -> str:
        known = [e for e in endpoints if e.url in request_stats]
        unseen = [e for e in endpoints if e.url not in request_stats]
        return (unseen or sorted(known, key=lambda e: request_stats[e.url].qps))[0].url

    @abc.abstractmethod
    def route_request(
        self, endpoints: Any, engine_stats: Any, request_stats: Any, request: Any
    ) -> Any: ...


class RoundRobinRouter(RoutingInterface):
    def __init__(self) -> None:
        self.turns: Counter[frozenset[str]] = Counter()
        self._initialized = True

    def route_request(
        self, endpoints: Any, engine_stats: Any, request_stats: Any, request: Any
    ) -> str:
        urls = sorted(e.url for e in endpoints)
        turn = self.turns[frozenset(urls)]
        self.turns[frozenset(urls)] += 1
        return urls[turn % len(urls)]


class _WithBody(RoutingInterface):
    async def route_request(  # type: ignore[override]
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any,
    ) -> str:
        return self._qps_routing(endpoints, request_stats)


class SessionRouter(_WithBody):
    def __init__(self, session_key: str | None = None) -> None:
        if session_key is None:
            raise ValueError("session_key is needed")
        self.session_key = session_key


class KvawareRouter(_WithBody):
    def __init__(self, lmcache_controller_port: int, session_key: str, **_: Any) -> None:
        raise RuntimeError("the controller is not installed")

    def start_kv_manager(self) -> None: ...

    def close(self) -> None: ...


class PrefixAwareRouter(_WithBody):
    def __init__(self, prefix_min_match_length: int = 0) -> None:
        if hasattr(self, "_initialized"):
            return
        self.hashtrie = object()
        self.prefix_min_match_length = prefix_min_match_length
        self._initialized = True


class DisaggregatedPrefillRouter(RoutingInterface):
    def __init__(self, prefill_model_labels: Any, decode_model_labels: Any) -> None:
        self.prefill_model_labels = prefill_model_labels
        self.decode_model_labels = decode_model_labels

    def route_request(self, *_: Any) -> str:
        raise RuntimeError("not used")


class DisaggregatedPrefillOrchestratedRouter(DisaggregatedPrefillRouter):
    def _find_endpoints(self, endpoints: Any) -> Any:
        halves = (self.prefill_model_labels, self.decode_model_labels)
        return tuple([e for e in endpoints if e.model_label in labels] for labels in halves)

    def select_prefill_endpoint(self, endpoints: Any) -> Any:
        return endpoints[0]

    def select_decode_endpoint(self, endpoints: Any) -> Any:
        return endpoints[0]


def _classes() -> dict[str, Any]:
    return {
        "session": SessionRouter,
        "roundrobin": RoundRobinRouter,
        "kvaware": KvawareRouter,
        "prefixaware": PrefixAwareRouter,
        "disaggregated_prefill": DisaggregatedPrefillRouter,
        "disaggregated_prefill_orchestrated": DisaggregatedPrefillOrchestratedRouter,
    }


_ARGUMENTS = {
    "session": ("session_key",),
    "kvaware": ("lmcache_controller_port", "session_key", "kv_aware_threshold"),
    "prefixaware": ("prefix_min_match_length",),
    "disaggregated_prefill": ("prefill_model_labels", "decode_model_labels"),
    "disaggregated_prefill_orchestrated": ("prefill_model_labels", "decode_model_labels"),
}


def initialize_routing_logic(logic: str, **kwargs: Any) -> Any:
    names = _ARGUMENTS.get(logic, ())
    given = {n: kwargs.get(n, 0 if n == "prefix_min_match_length" else None) for n in names}
    router = _classes()[logic](**given)
    if logic == "kvaware":
        router.start_kv_manager()
    attempts = kwargs.get("max_instance_failover_reroute_attempts", 0)
    router.max_instance_failover_reroute_attempts = attempts
    return router


def reconfigure_routing_logic(logic: str, **kwargs: Any) -> Any:
    cleanup_routing_logic()
    return initialize_routing_logic(logic, **kwargs)


def get_routing_logic() -> Any:
    for cls in _classes().values():
        if cls in SingletonABCMeta._instances:
            return cls()
    raise ValueError("no router yet")


def cleanup_routing_logic() -> None:
    for cls in _classes().values():
        if cls in SingletonABCMeta._instances:
            router = cls()
            if hasattr(router, "close"):
                router.close()
            del SingletonABCMeta._instances[cls]
