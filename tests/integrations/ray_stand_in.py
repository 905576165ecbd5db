"""Ray Serve's side of the request-router contract, as far as an adapter can see it."""

import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest


class ReplicaID(NamedTuple):
    unique_id: str

    def to_full_id_str(self) -> str:
        return f"app#deployment#{self.unique_id}"


class Replica:
    def __init__(self, name: str, limit: int = 4) -> None:
        self.replica_id = ReplicaID(name)
        self.max_ongoing_requests = limit
        self.multiplexed_model_ids: set[str] = set()


class Pending:
    def __init__(self, number: int, *args: Any, session: str = "", model: str = "", **kwargs: Any):
        self.args, self.kwargs = list(args), kwargs
        self.metadata = SimpleNamespace(
            internal_request_id=f"r{number}", session_id=session, multiplexed_model_id=model
        )
        self.routing_context = SimpleNamespace(should_backoff=False)
        self.future = Future()


class Future:
    """As much of the request's future as an adapter may touch."""

    error: BaseException | None = None

    def done(self) -> bool:
        return self.error is not None

    def set_exception(self, error: BaseException) -> None:
        self.error = error


class BackPressureError(Exception):
    def __init__(
        self,
        num_queued_requests: int,
        max_queued_requests: int,
        status_code: int = 503,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(num_queued_requests, max_queued_requests, status_code, retry_after_s)
        self.status_code, self.retry_after_s = status_code, retry_after_s


class LocalityMixin:
    def apply_locality_routing(self, pending_request: Any = None) -> Any:
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        return self._replica_id_set  # type: ignore[attr-defined]


class MultiplexMixin:
    def apply_multiplex_routing(self, pending_request: Any = None) -> Any:
        pending_request.routing_context.should_backoff = True
        model = pending_request.metadata.multiplexed_model_id
        replicas = self._replicas.values()  # type: ignore[attr-defined]
        return {r.replica_id for r in replicas if model in r.multiplexed_model_ids}


class RequestRouter:
    def __init__(self, deployment_id: Any) -> None:
        self._deployment_id = deployment_id
        self._use_replica_queue_len_cache = True
        self._replicas: dict[Any, Any] = {}
        self._replica_id_set: set[Any] = set()
        self.replica_queue_len_cache: dict[Any, int] = {}

    def update_replicas(self, replicas: list[Any]) -> None:
        self._replicas = {r.replica_id: r for r in replicas}
        self._replica_id_set = set(self._replicas)

    def on_replica_actor_died(self, replica_id: Any) -> None:
        self._replicas.pop(replica_id, None)
        self._replica_id_set.discard(replica_id)

    def on_replica_actor_unavailable(self, replica_id: Any) -> None:
        self.replica_queue_len_cache.pop(replica_id, None)

    def on_new_queue_len_info(self, replica_id: Any, ongoing: int) -> None:
        self.replica_queue_len_cache[replica_id] = ongoing

    def on_send_request(self, replica_id: Any) -> None:
        self.replica_queue_len_cache[replica_id] = 1 + self.replica_queue_len_cache.get(
            replica_id, 0
        )

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        pass

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        pass


class _Metric:
    seen: ClassVar[dict[str, float]] = defaultdict(float)

    def __init__(self, name: str, **_options: Any) -> None:
        self._name = name

    def set_default_tags(self, tags: Any) -> "_Metric":
        return self

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        self.seen[" ".join([self._name, *(tags or {}).values()])] += value

    def observe(self, value: float, tags: Any = None) -> None:
        self.inc()
        self.seen[f"sum of {self._name}"] += value

    def set(self, value: float, tags: Any = None) -> None:
        self.seen[self._name] = value


def install(patch: pytest.MonkeyPatch) -> dict[str, float]:
    """Put the stand-in where Ray would be; gives what its metrics saw."""
    modules = {name: ModuleType(name) for name in ("ray", "ray.serve", "ray.util")}
    surface = ModuleType("ray.serve.request_router")
    for made in (LocalityMixin, MultiplexMixin, RequestRouter):
        setattr(surface, made.__name__, made)
    metrics = ModuleType("ray.util.metrics")
    for kind in ("Counter", "Gauge", "Histogram"):
        setattr(metrics, kind, _Metric)
    modules["ray.util"].metrics = metrics  # type: ignore[attr-defined]
    errors = ModuleType("ray.serve.exceptions")
    errors.BackPressureError = BackPressureError  # type: ignore[attr-defined]
    modules |= {"ray.serve.request_router": surface, "ray.util.metrics": metrics}
    modules["ray.serve.exceptions"] = errors
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    for name in [m for m in sys.modules if m.startswith("routecore.integrations.ray_serve")]:
        patch.delitem(sys.modules, name)
    _Metric.seen.clear()
    return _Metric.seen
