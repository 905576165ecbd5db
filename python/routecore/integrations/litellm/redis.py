"""The Redis that LiteLLM itself was given, for routers that route as one."""

import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from routecore.errors import RouteError

WORD = "litellm"
"""As the setting `replicas`: use LiteLLM's Redis."""


def url(environ: Mapping[str, str] = os.environ) -> str:
    """Where the proxy's router keeps its cooldowns and usage; else where REDIS_… variables say.

    Raises:
        RouteError: LiteLLM has no Redis, or several nodes of a cluster; says what to set instead.
    """
    known = _of_proxy() or {
        name: environ[f"REDIS_{name.upper()}"]
        for name in ("url", "host", "port", "username", "password", "ssl", "db")
        if environ.get(f"REDIS_{name.upper()}")
    }
    if known.get("url"):
        return str(known["url"])
    if known.get("startup_nodes"):
        raise RouteError(
            "replicas: litellm: LiteLLM's Redis is a cluster; name one node of it: "
            "replicas: redis://host:6379"
        )
    if not known.get("host"):
        raise RouteError(
            "replicas: litellm: LiteLLM has no Redis; set router_settings.redis_host and "
            "redis_port, or REDIS_URL, or name the address: replicas: redis://host:6379"
        )
    scheme = "rediss" if str(known.get("ssl", "")).lower() in ("true", "1", "yes") else "redis"
    user, password = (quote(str(known.get(name) or ""), "") for name in ("username", "password"))
    who = f"{user}:{password}@" if user or password else ""
    database = f"/{known['db']}" if known.get("db") else ""
    return f"{scheme}://{who}{known['host']}:{known.get('port') or 6379}{database}"


def _of_proxy() -> Mapping[str, Any]:
    """What the proxy's router connected with; nothing outside the proxy."""
    proxy = sys.modules.get("litellm.proxy.proxy_server")
    router = getattr(proxy, "llm_router", None)
    # LiteLLM from 1.110 on calls the cache a store and warns of its old name.
    health = getattr(router, "health", None)
    store = getattr(health() if callable(health) else None, "store", None)
    cache = getattr(router, "cache", None) if store is None else store
    found = getattr(getattr(cache, "redis_cache", None), "redis_kwargs", None)
    return found if isinstance(found, Mapping) else {}
