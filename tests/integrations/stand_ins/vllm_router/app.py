"""The host's application: its state, its start, and one request from end to end."""

import importlib
import time
from types import SimpleNamespace
from typing import Any

from vllm_router import service_discovery
from vllm_router.routers import routing_logic
from vllm_router.routers.routing_logic import (
    KvawareRouter,
    PrefixAwareRouter,
    SessionRouter,
)
from vllm_router.stats import request_stats

app = SimpleNamespace(state=SimpleNamespace(), middleware_stack=None, user_middleware=[])


class Request:
    def __init__(self) -> None:
        self.app, self.headers = app, {}


def start(logic: str, callbacks: str | None, urls: list[str], **flags: Any) -> Any:
    service_discovery._global_service_discovery = service_discovery.StaticServiceDiscovery(urls)
    request_stats.RequestStatsMonitor(60.0)
    if callbacks:
        _callbacks(callbacks)
    routing_logic.initialize_routing_logic(logic, **flags)
    app.state.router = routing_logic.get_routing_logic()
    app.state.request_stats_monitor = request_stats.get_request_stats_monitor()
    return app


def reload(logic: str, callbacks: str | None, urls: list[str], **flags: Any) -> None:
    service_discovery._global_service_discovery = service_discovery.StaticServiceDiscovery(urls)
    app.state.router = routing_logic.reconfigure_routing_logic(logic, **flags)
    if callbacks:
        _callbacks(callbacks)
    else:
        app.state.callbacks = None


def _callbacks(place: str) -> None:
    module, _, name = place.rpartition(".")
    app.state.callbacks = getattr(importlib.import_module(module), name)


async def route(request: Any, endpoints: Any, stats: Any, body: Any) -> str:
    router = app.state.router
    if isinstance(router, (KvawareRouter, PrefixAwareRouter, SessionRouter)):
        return await router.route_request(endpoints, {}, stats, request, body)
    return router.route_request(endpoints, {}, stats, request)


async def handle(body: Any, request_id: str, backend: Any, answer: bytes = b"{}") -> str:
    """One request; `backend(url)` is awaited, and fails by raising. Gives the endpoint's URL."""
    request = Request()
    if app.state.callbacks:
        app.state.callbacks.pre_request(request, b"", body)
    endpoints = service_discovery._global_service_discovery.get_endpoint_info()
    monitor = app.state.request_stats_monitor
    stats = monitor.get_request_stats(time.time())
    failed: set[str] = set()
    while True:
        left = [e for e in endpoints if e.url not in failed]
        url = await route(request, left, stats, body)
        monitor.on_new_request(url, request_id, time.time())
        try:
            await backend(url)
            break
        except ConnectionError:
            failed.add(url)
            if len(failed) > app.state.router.max_instance_failover_reroute_attempts:
                raise
    monitor.on_request_response(url, request_id, time.time())
    monitor.on_request_complete(url, request_id, time.time())
    if app.state.callbacks:
        await app.state.callbacks.post_request(request, answer)
    return url


def main() -> None:
    raise SystemExit(7)
