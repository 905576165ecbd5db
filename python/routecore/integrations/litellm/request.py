"""What LiteLLM's filter hook receives of a request: who may serve it, its prompt, its session."""

from collections.abc import Mapping, Sequence
from typing import Any

from routecore.requests.body import BESIDE, PROMPTS
from routecore.requests.headers import header

_METADATA = ("metadata", "litellm_metadata")
_NARROWING = ("tags", "tag_regex", "order")
_PROMPTS = frozenset(PROMPTS)
_FIELDS = frozenset((*PROMPTS, *BESIDE))


def id_of(deployment: Mapping[str, Any]) -> str:
    """LiteLLM's own id of a deployment: what we take for its URL."""
    found: str = deployment["model_info"]["id"]
    return found


def ids_of(deployments: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The same of several."""
    return tuple([deployment["model_info"]["id"] for deployment in deployments])


def narrowing(deployments: Sequence[Mapping[str, Any]]) -> bool:
    """Whether LiteLLM may drop some of them, by tags or order, after our choice."""
    return any(name in d["litellm_params"] for d in deployments for name in _NARROWING)


def permitted(
    deployments: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]] | None:
    """Those that LiteLLM's later filters let pass; None or none if that is not for us to tell.

    LiteLLM drops by order, tags and earlier failures only after its hook. Were the one that we
    return dropped, the request would fail. Those that failed this request before are avoided.
    """
    found: Sequence[Mapping[str, Any]] | None = deployments
    if any(
        "tags" in d["litellm_params"] or "tag_regex" in d["litellm_params"] for d in deployments
    ):
        found = _by_tags(deployments, kwargs)
    if not found:
        return None
    target = kwargs.get("_target_order")
    if target is not None or any("order" in d["litellm_params"] for d in found):
        found = _by_order(found, target)
    failed = failed_before(kwargs)
    return [d for d in found if d["model_info"]["id"] not in failed] or found


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
    known = asked & set().union(*tags)
    pairs = list(zip(deployments, tags, strict=True))
    if not known:
        return [d for d, own in pairs if "default" in own] or deployments
    return [d for d, own in pairs if known <= own] or [d for d, own in pairs if known & own]


def failed_before(kwargs: Mapping[str, Any]) -> set[str]:
    """Deployments that an earlier attempt at this request met in vain."""
    failed: set[str] = set()
    for name in ("_excluded_deployment_ids", "_retry_skipped_deployment_ids"):
        if name in kwargs:
            failed.update(kwargs[name] or ())
    for name in _METADATA:
        if name in kwargs:
            for attempt in _metadata(kwargs, name).get("previous_models") or ():
                if isinstance(attempt, Mapping) and attempt.get("deployment_id"):
                    failed.add(attempt["deployment_id"])
    return failed


def body_of(
    model: str, messages: Sequence[Any] | None, kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The body that a router reads, or None for a request whose prompt the hook is not shown."""
    # Of the request's many fields few are asked for, and most requests have few of those.
    found = {name: kwargs[name] for name in _FIELDS.intersection(kwargs)}
    body = {name: value for name, value in found.items() if value and not callable(value)}
    if messages:
        body["messages"] = messages
    if not body or _PROMPTS.isdisjoint(body):
        return None
    if model:
        body["model"] = model
    return body


def headers_of(kwargs: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """The client's headers, in which a session may be named by `key`.

    Without it there, LiteLLM's own session ids count.
    """
    headers = (kwargs.get("proxy_server_request") or {}).get("headers")
    for name in _METADATA:
        headers = headers or _metadata(kwargs, name).get("headers")
    if isinstance(headers, Mapping) and header(dict(headers), key) is not None:
        return {str(h): str(value) for h, value in headers.items()}
    session = kwargs.get("litellm_session_id") or kwargs.get(key)
    for name in _METADATA:
        session = session or _metadata(kwargs, name).get("session_id")
    return {key: str(session)} if session else {}


def _metadata(kwargs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = kwargs.get(name)
    # A dict, as a rule; to ask the abstract class of it takes longer.
    return found if isinstance(found, dict) or isinstance(found, Mapping) else {}  # noqa: SIM101
