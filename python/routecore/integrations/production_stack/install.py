"""Puts our classes where the host looks for its own. Repeatable, for each dynamic reload."""

import importlib
import inspect
import sys
import threading
from typing import Any

from routecore.errors import RouteError
from routecore.integrations.production_stack import (
    client,
    disaggregated,
    host,
    routers,
    settings,
    sleep,
)
from routecore.integrations.production_stack.hooks import Callbacks
from routecore.integrations.production_stack.monitor import RequestStatsMonitor, ShadowMonitor
from routecore.integrations.shared.replicas import replicas_of_process
from routecore.process import renew_lock

_log = host.logger("routecore.production_stack.install")
_lock = threading.RLock()
renew_lock(sys.modules[__name__], "_lock", threading.RLock)

ROUTERS: tuple[type[routers.Routed], ...] = (
    routers.RoundRobinRouter,
    routers.SessionRouter,
    routers.PrefixAwareRouter,
    routers.KvawareRouter,
    routers.LoadAwareRouter,
    disaggregated.DisaggregatedPrefillRouter,
    disaggregated.DisaggregatedPrefillOrchestratedRouter,
)
# A dynamic reload builds routers without these settings of the command line.
_FORGOTTEN = (
    "max_instance_failover_reroute_attempts",
    "prefix_min_match_length",
    "prefill_model_labels",
    "decode_model_labels",
)
_theirs = {cls.__name__: getattr(host.routing_logic, cls.__name__, None) for cls in ROUTERS}
_their_monitor: Any = host.request_stats.RequestStatsMonitor


def callbacks() -> Callbacks:
    """Install, and return what the host calls.

    The host asks for it at its start and after each reload has rebuilt its router.

    Raises:
        StartError: The settings are wrong.
    """
    with _lock:
        try:
            chosen = settings.load()
            if chosen.strategy != settings.EQUAL:
                chosen.router()  # a value out of range ends the start here, not in its middle
        except RouteError as error:
            raise settings.StartError(str(error)) from None
        names(chosen)
        _replace_monitor(_monitor_class(chosen))
        try:
            replicas_of_process(chosen)
        except (RouteError, ImportError) as error:
            raise settings.StartError(str(error)) from None
        _replace_routers()
        app = _app()
        if app is not None:
            attach(app)
        if chosen.cache_discovery:
            _cache_discovery()
    return _callbacks


def names(chosen: settings.Settings) -> None:
    """Let the host's factories find our classes; objects that exist stay as they are."""
    for cls in ROUTERS:
        if _theirs[cls.__name__] is not None:
            setattr(host.routing_logic, cls.__name__, cls)
    host.request_stats.RequestStatsMonitor = _monitor_class(chosen)


def _monitor_class(chosen: settings.Settings) -> Any:
    return ShadowMonitor if chosen.mode == "shadow" else RequestStatsMonitor


def _replace_monitor(cls: Any) -> None:
    instances = host.request_stats.SingletonMeta._instances
    old = instances.get(_their_monitor)
    if cls not in instances and old is not None:
        instances[cls] = type.__call__(cls, old.sliding_window_size)
    if cls in instances:
        instances[_their_monitor] = instances[cls]


def _replace_routers() -> None:
    instances = host.routing_logic.SingletonABCMeta._instances
    for cls in ROUTERS:
        old = instances.get(_theirs[cls.__name__])
        if old is None or isinstance(old, routers.Routed):
            continue
        given = list(inspect.signature(cls.__init__).parameters)[1:]
        ours = cls(**{name: getattr(old, name) for name in given if hasattr(old, name)})
        _carry(old, ours)
        del instances[_theirs[cls.__name__]]


def _carry(old: Any, ours: routers.Routed) -> None:
    for name in _FORGOTTEN:
        if getattr(old, name, None) and not getattr(ours, name, None):
            setattr(ours, name, getattr(old, name))
    before: Any = getattr(old, "decision", None)
    if before is None or before is ours.decision:
        return
    if type(old) is type(ours) and before.is_like(ours.decision):
        ours.decision = before  # what it has learned of the caches
    else:
        before.end()


def _app() -> Any:
    for name in ("vllm_router.app", "__main__"):
        app = getattr(sys.modules.get(name), "app", None)
        if hasattr(app, "state"):
            return app
    return None


def attach(app: Any) -> None:
    """Give a host that is running our router and monitor, as it would take them itself."""
    state = app.state
    client.listen(app)
    sleep.listen()
    instances = host.routing_logic.SingletonABCMeta._instances
    ours = next((instances[cls] for cls in ROUTERS if cls in instances), None)
    if ours is not None:
        before = routers.Routed.closed
        if before is not None and before is not ours:
            _carry(before, ours)
        if getattr(state, "router", None) is not None:
            state.router = ours
    if getattr(state, "request_stats_monitor", None) is not None:
        state.request_stats_monitor = host.request_stats.get_request_stats_monitor()
    needs_body = disaggregated.DisaggregatedPrefillOrchestratedRouter
    tapped = any(m.cls is disaggregated.Tap for m in getattr(app, "user_middleware", ()))
    if not tapped and _orchestrates(instances, needs_body) and app.middleware_stack is None:
        app.add_middleware(disaggregated.Tap)


def _orchestrates(instances: Any, cls: type) -> bool:
    # At the host's start the router is made after us; what it will be stands in the arguments.
    return cls in instances or any("orchestrated" in argument for argument in sys.argv)


def check(app: Any) -> None:
    """Before each request: put ours in place of a router of the host's own. Never raises."""
    kind = type(app.state.router)
    if kind not in _stock:
        return
    try:
        callbacks()
    except Exception as error:
        _log.warning("routecore: cannot be installed again: %s", error)
        return
    _log.warning("routecore: the host routed with its %s until now; replaced", kind.__name__)


_stock = {cls for cls in _theirs.values() if cls is not None}
_callbacks = Callbacks(check)


def _cache_discovery() -> None:
    """Static discovery makes all its endpoint objects anew for each request; it need not."""
    try:
        module: Any = importlib.import_module("vllm_router.service_discovery")
    except ImportError:
        return
    discovery: Any = getattr(module, "_global_service_discovery", None)
    static = getattr(module, "StaticServiceDiscovery", None)
    if static is None or type(discovery) is not static:
        return
    if "get_endpoint_info" in vars(discovery):
        return
    make = discovery.get_endpoint_info
    made: list[Any] = []
    of: tuple[Any, ...] = ()

    def get_endpoint_info() -> list[Any]:
        nonlocal made, of
        # The health check puts a new list in place of the old one each time.
        now = (discovery.unhealthy_endpoint_hashes, discovery.urls, discovery.models)
        if len(of) != len(now) or any(a is not b for a, b in zip(of, now, strict=True)):
            made, of = make(), now
        return made.copy()

    discovery.get_endpoint_info = get_endpoint_info
