"""LiteLLM: any strategy among the deployments of a model group, by configuration alone.

Proxy: `litellm_settings: {callbacks: ["routecore.integrations.litellm.callback"]}`.
SDK: `litellm.callbacks.append(RoutecoreCallback(strategy="least_connections"))`.

LiteLLM filters by health, cooldown, budget and so on before; of what is left we return one.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from routecore.errors import RouteError
from routecore.hold import Held, Rejected
from routecore.integrations.litellm import redis
from routecore.integrations.litellm.calls import Calls
from routecore.integrations.litellm.group import Group
from routecore.integrations.litellm.hold import rate_limited
from routecore.integrations.litellm.request import (
    body_of,
    failed_before,
    headers_of,
    ids_of,
    permitted,
)
from routecore.integrations.shared import defaults
from routecore.integrations.shared.fleet import Fleet
from routecore.integrations.shared.settings import Settings
from routecore.integrations.shared.shadow import Choice
from routecore.integrations.shared.telemetry import Telemetry, watch

try:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger
except ModuleNotFoundError as _missing:
    if _missing.name is None or _missing.name.partition(".")[0] != "litellm":
        raise
    raise ImportError(
        "routecore.integrations.litellm needs LiteLLM: pip install 'routecore[litellm]'"
    ) from _missing

_log = logging.getLogger("LiteLLM.routecore")
_MAX_GROUPS = 256  # with wildcard routes it is clients who name groups
_OURS: ContextVar[Choice | None] = ContextVar("routecore", default=None)


class RoutecoreCallback(CustomLogger):
    """Chooses a deployment, and counts requests from LiteLLM's call to its end.

    Settings come from the arguments; without any, from `litellm_settings: routecore_params: {…}`,
    which variables (ROUTECORE_STRATEGY, ROUTECORE_PARAMS, …) override. See `Settings`.

    Args:
        groups: Model group → settings that differ there.
        given: The settings.

    Raises:
        RouteError: A setting or parameter is refused.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, Any]] | None = None, **given: Any) -> None:
        super().__init__()
        self._configured: tuple[dict[str, Any], dict[str, dict[str, Any]]] | None = None
        self._groups: OrderedDict[str, Group | None] = OrderedDict()
        self._calls = Calls()
        # Wrong settings fail here, at start; those of the proxy are not known yet.
        if groups or given:
            self._configure({**given, "groups": groups})
        else:
            self._environment = Settings.read()
            read = Settings.of(self._environment)
            if "strategy" in self._environment:
                read.router()

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        """The one deployment to call; or all that came, for LiteLLM to choose, if we cannot."""
        fleet = None
        try:
            if not healthy_deployments or not self._is_last():
                return healthy_deployments
            group = self._group(model)
            if group is None:
                return healthy_deployments
            fleet, kwargs = group.fleet, request_kwargs or {}
            if not group.is_current(healthy_deployments):
                self._calls.know(group.read(healthy_deployments), fleet)
            candidates: Sequence[Any] = healthy_deployments
            ids, endpoints = group.ids, group.endpoints
            if group.narrows or failed_before(kwargs):
                narrowed = permitted(candidates, kwargs)
                if not narrowed:
                    return healthy_deployments
                candidates, ids = narrowed, ids_of(narrowed)
                endpoints = fleet.endpoints(ids)
            key = fleet.router.session_key
            headers = headers_of(kwargs, key) if key else None
            body = body_of(model, messages, kwargs)
            if fleet.caches is not None:
                await fleet.prepare(body, lambda: group.addresses)
            if fleet.shadow is not None:
                _OURS.set(fleet.compare(endpoints, headers, body))
                return healthy_deployments
            if fleet.holds:
                ours = await fleet.acquire(endpoints, headers, body)
            else:
                ours = fleet.choose(endpoints, headers, body)
            if candidates is not healthy_deployments:
                return [candidates[ids.index(ours)]]
            found = group.named(ours, healthy_deployments)
            if found is None:  # it is not among these, which are others than those known
                self._calls.know(group.read(healthy_deployments), fleet)
                ours = fleet.choose(group.endpoints, headers, body)
                found = healthy_deployments[group.ids.index(ours)]
            return [found]
        except Rejected as full:
            raise rate_limited(full, model) from full
        except Exception as error:
            self._fault(fleet, error)
            return healthy_deployments

    def held(self, model: str) -> tuple[Held, ...]:
        """The requests of a model group that wait for room, oldest first, and what for."""
        group = self._groups.get(model)
        return () if group is None else group.fleet.held()

    # Lifecycle. LiteLLM calls these by keyword. Which of the ends it calls, and how often,
    # depends on the request: the first counts.

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> None:
        """The request goes to a deployment; changes nothing of it."""
        self._calls.before(kwargs)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """The request is about to be sent."""
        choice = _OURS.get()
        if choice is not None:
            _OURS.set(None)
        self._calls.sent(kwargs, choice)

    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        """Served, if not streamed; comes before the log event, which waits in a queue."""
        if not request_data.get("stream"):
            self._calls.served(request_data, response)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Any, call_type: Any, fallback_depth: Any = None
    ) -> None:
        """This attempt failed."""
        self._calls.failed(request_data, exception)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Served to its end; for streams this is the only word of it."""
        self._calls.served(kwargs, response_obj, end_time)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Failed."""
        self._calls.failed(kwargs, _exception(kwargs))

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Served, for callers of LiteLLM's synchronous functions."""
        self._calls.served(kwargs, response_obj, end_time)

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Failed, for callers of LiteLLM's synchronous functions."""
        self._calls.failed(kwargs, _exception(kwargs))

    # Settings, and the fleet of each model group.

    def _configure(self, given: Mapping[str, Any]) -> None:
        base = {"strategy": defaults.LITELLM, **given}
        groups = msgspec.convert(base.pop("groups", None) or {}, dict[str, dict[str, Any]])
        for differing in ({}, *groups.values()):
            Settings.of({**base, **differing}).router()
        self._configured = base, groups

    def _group(self, name: str) -> Group | None:
        try:
            self._groups.move_to_end(name)
            return self._groups[name]
        except KeyError:
            pass
        group = None
        try:
            if self._configured is None:
                given = getattr(litellm, "routecore_params", None) or {}
                self._configure({**given, **self._environment})
            assert self._configured is not None
            base, groups = self._configured
            read = Settings.of({**base, **groups.get(name, {})})
            if read.replicas == redis.WORD:
                read = msgspec.structs.replace(read, replicas=redis.url())
            group = Group(Fleet(read, name, Telemetry("litellm", read.strategy), _log))
            watch(group.fleet.monitor)
        except (RouteError, TypeError, msgspec.ValidationError) as error:
            _log.error("routecore %r: %s. LiteLLM chooses until this is mended.", name, error)
        self._groups[name] = group
        if len(self._groups) > _MAX_GROUPS:
            self._groups.popitem(last=False)
        return group

    def _is_last(self) -> bool:
        """Whether no callback filters after us; if one does, we go behind it for the next request.

        One that came to our single deployment and refused it would fail the request.
        """
        plain = CustomLogger.async_filter_deployments
        callbacks = litellm.callbacks
        for callback in reversed(callbacks):
            if callback is self:
                return True
            kind = type(callback)
            filters = getattr(kind, "async_filter_deployments", plain) is not plain
            if filters and not issubclass(kind, RoutecoreCallback):
                break
        if self in callbacks:
            # A new list: requests that are between two filters go on with the old one.
            litellm.callbacks = [*(c for c in callbacks if c is not self), self]
            return False
        return True

    def _fault(self, fleet: Fleet | None, error: Exception) -> None:
        if fleet is None:
            _log.warning("routecore: LiteLLM chose, because of %s: %s", type(error).__name__, error)
        else:
            fleet.fault(error)


def _exception(kwargs: Any) -> Any:
    return kwargs.get("exception") if isinstance(kwargs, Mapping) else None


callback: RoutecoreCallback = RoutecoreCallback()
"""For `litellm_settings.callbacks` of the proxy."""
