"""The documented interface: what a router is, and its one instance per class."""

import abc
import threading
from typing import Any, ClassVar, Protocol

from routecore.endpoints.stats import EndpointInfo, EngineStats, RequestStats
from routecore.process import renew_lock
from routecore.requests.headers import session_named
from routecore.singleton import SingletonType


class Endpoint(Protocol):
    """All that a router needs of an endpoint; `healthy` and `sleep` are read where present."""

    @property
    def url(self) -> str:
        """Its address, and its name everywhere else."""
        ...


class SingletonABCMeta(SingletonType, abc.ABCMeta):
    """Makes each class a singleton: calling it again returns the first instance.

    `SingletonABCMeta._instances` is the registry, class to instance. Clear it to start anew, or
    make a second instance with `routecore.new_instance`. Calling a class of this package again
    with other arguments is a `RouteError`; for classes of your own it is a `RuntimeWarning`.
    """

    _instances: ClassVar[dict[type, Any]] = {}
    _lock = threading.RLock()


renew_lock(SingletonABCMeta, "_lock", threading.RLock)


class RoutingInterface(metaclass=SingletonABCMeta):
    """A routing strategy: subclass it and write `route_request`.

    Attributes:
        session_key: Header, or key of the body, that carries the session id; None for none.
        max_instance_failover_reroute_attempts: How often a host may route a failed request again.
    """

    session_key: str | None = None
    max_instance_failover_reroute_attempts: int = 0

    @abc.abstractmethod
    def route_request(
        self,
        endpoints: list[EndpointInfo],
        engine_stats: dict[str, EngineStats],
        request_stats: dict[str, RequestStats],
        request: Any,
    ) -> str:
        """
        Route the request to the appropriate engine URL

        Args:
            endpoints (List[EndpointInfo]): The list of engine URLs
            engine_stats (Dict[str, EngineStats]): The engine stats indicating
                the 'physical' load of each engine
            request_stats (Dict[str, RequestStats]): The request stats
                indicating the request-level performance of each engine
            request (Request): The incoming request
        """
        raise NotImplementedError()

    def extract_session_id(self, request: Any, request_json: Any = None) -> str | None:
        """The session a request belongs to: its header first, then the key of its body.

        Args:
            request: Anything with `.headers`; headers are read in any case, with `-` or `_`.
            request_json: The parsed body, if the host has it. What is no dict is ignored.

        Returns:
            The id as text, or None when the router has no `session_key` or the request no id.
        """
        key = self.session_key
        headers = getattr(request, "headers", None)
        return session_named(key, headers, request_json) if key else None
