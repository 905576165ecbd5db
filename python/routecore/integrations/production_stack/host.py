"""Finds production-stack's router, and tells it from the other package of its name."""

import importlib
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

_ROUTING = "vllm_router.routers.routing_logic"
_INSTALL = (
    "install production-stack's router from a checkout of vllm-project/production-stack: "
    "pip install ./production-stack (it is not on the package index)"
)


def _has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # a parent is missing, or is no package
        return False


def _found() -> Any:
    if not _has("vllm_router"):
        raise ImportError(f"production-stack's vllm_router is not installed: {_INSTALL}")
    module = importlib.import_module(_ROUTING) if _has(_ROUTING) else None
    if module is None or not hasattr(module, "RoutingInterface"):
        raise ImportError(
            "the vllm_router that is installed is not production-stack's but another project's "
            f"(it has no {_ROUTING}): uninstall the package vllm-router, then {_INSTALL}"
        )
    return module


routing_logic: Any = _found()
request_stats: Any = importlib.import_module("vllm_router.stats.request_stats")


def endpoints() -> list[Any]:
    """The endpoints that the host knows now, those asleep among them.

    Raises:
        Exception: It has no discovery yet, or one that fails just now.
    """
    discovery: Any = importlib.import_module("vllm_router.service_discovery")
    return list(discovery.get_service_discovery().get_endpoint_info())


def addresses(given: Sequence[Any]) -> dict[str, str]:
    """URL → URL of all endpoints that the host knows; of those given, if it cannot be asked."""
    try:
        found: Sequence[Any] = endpoints()
    except Exception:
        found = given
    return {endpoint.url: endpoint.url for endpoint in found}


def labels() -> set[str]:
    """Model labels of the endpoints that the host knows now; empty if it knows none yet."""
    try:
        found = endpoints()
    except Exception:
        return set()
    return {str(getattr(endpoint, "model_label", None)) for endpoint in found}


def logger(name: str) -> logging.Logger:
    """A logger whose lines look like the host's."""
    try:
        made: logging.Logger = importlib.import_module("vllm_router.log").init_logger(name)
    except (ImportError, AttributeError):
        return logging.getLogger(name)
    return made
