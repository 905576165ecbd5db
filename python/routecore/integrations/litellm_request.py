"""What LiteLLM's filter hook is told of a request: who may serve it, its prompt, its session."""

from collections.abc import Mapping, Sequence
from typing import Any


def permitted(
    deployments: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]] | None:
    """Those that LiteLLM's later filters let pass; None if that is not for us to tell.

    LiteLLM drops by order, tags and earlier failures only after this hook. Were the one that we
    return dropped, the request would fail. Attempts that failed before are avoided as well.
    """
    params = [deployment["litellm_params"] for deployment in deployments]
    found: Sequence[Mapping[str, Any]] = deployments
    if any("tags" in p or "tag_regex" in p for p in params):
        tagged = _by_tags(deployments, kwargs)
        if tagged is None:
            return None
        found = tagged
    target = kwargs.get("_target_order")
    if target is not None or any("order" in p for p in params):
        found = _by_order(found, target)
    failed = _failed_before(kwargs)
    if failed:
        found = [d for d in found if d["model_info"]["id"] not in failed] or found
    return found or None


def _by_order(deployments: Sequence[Mapping[str, Any]], target: Any) -> Sequence[Mapping[str, Any]]:
    orders = [d["litellm_params"].get("order") for d in deployments]
    if target is None:
        known = [order for order in orders if order is not None]
        if not known:
            return deployments
        target = min(known)
    return [d for d, order in zip(deployments, orders, strict=True) if order == target]


def _by_tags(
    deployments: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]] | None:
    """Deployments with all of the request's tags that any has; else with one; else the default.

    What passes here passes whether LiteLLM filters by tags or not, and whether it wants all
    tags or any. Its signs (`!tag`, `&tag`) and patterns are left to it.
    """
    if any("tag_regex" in d["litellm_params"] for d in deployments):
        return None
    asked = {str(tag) for name in _METADATA for tag in _metadata(kwargs, name).get("tags") or ()}
    if any(tag[:1] in ("!", "&") for tag in asked):
        return None
    tags = [set(d["litellm_params"].get("tags") or ()) for d in deployments]
    known = asked.intersection(*[set().union(*tags)])
    pairs = list(zip(deployments, tags, strict=True))
    if not known:
        return [d for d, own in pairs if "default" in own] or deployments
    return [d for d, own in pairs if known <= own] or [d for d, own in pairs if known & own]


def _failed_before(kwargs: Mapping[str, Any]) -> set[str]:
    failed: set[str] = set()
    for name in ("_excluded_deployment_ids", "_retry_skipped_deployment_ids"):
        failed.update(kwargs.get(name) or ())
    for name in _METADATA:
        for attempt in _metadata(kwargs, name).get("previous_models") or ():
            if isinstance(attempt, Mapping) and attempt.get("deployment_id"):
                failed.add(attempt["deployment_id"])
    return failed


def body_of(
    model: str, messages: Sequence[Any] | None, kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The body that a router reads, or None for a request whose prompt the hook is not shown."""
    for name, prompt in (
        ("messages", messages),
        ("prompt", kwargs.get("prompt")),
        ("input", kwargs.get("input")),
    ):
        if prompt:
            body = {name: prompt, "model": model}
            tools = kwargs.get("tools")
            if tools:
                body["tools"] = tools
            return body
    return None


def headers_of(kwargs: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """The client's headers, in which a session may be named by `key`.

    Without it there, LiteLLM's own session ids count.
    """
    headers = (kwargs.get("proxy_server_request") or {}).get("headers")
    for name in _METADATA:
        headers = headers or _metadata(kwargs, name).get("headers")
    if isinstance(headers, Mapping) and any(str(h).lower() == key.lower() for h in headers):
        return {str(h): str(value) for h, value in headers.items()}
    session = kwargs.get("litellm_session_id") or kwargs.get(key)
    for name in _METADATA:
        session = session or _metadata(kwargs, name).get("session_id")
    return {key: str(session)} if session else {}


_METADATA = ("metadata", "litellm_metadata")


def _metadata(kwargs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = kwargs.get(name)
    return found if isinstance(found, Mapping) else {}
