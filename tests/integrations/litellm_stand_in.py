"""LiteLLM's side of the callback contract: the base class, the list, a router that uses both."""

import sys
import uuid
from datetime import datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class CustomLogger:
    def __init__(self, **_kwargs: Any) -> None:
        pass

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: Any,
        request_kwargs: Any = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        return healthy_deployments


def install(patch: pytest.MonkeyPatch) -> ModuleType:
    """Put the stand-in where LiteLLM would be; gives its module."""
    package = ModuleType("litellm")
    package.callbacks = []  # type: ignore[attr-defined]
    logger = ModuleType("litellm.integrations.custom_logger")
    logger.CustomLogger = CustomLogger  # type: ignore[attr-defined]
    for name, module in (
        ("litellm", package),
        ("litellm.integrations", ModuleType("litellm.integrations")),
        ("litellm.integrations.custom_logger", logger),
    ):
        patch.setitem(sys.modules, name, module)
    for name in [m for m in sys.modules if m.startswith("routecore.integrations.litellm")]:
        patch.delitem(sys.modules, name)
    return package


def deployments(n: int, **params: Any) -> list[dict[str, Any]]:
    return [
        {
            "model_name": "m",
            "litellm_params": {"model": "openai/m", **params},
            "model_info": {"id": f"d{i}"},
        }
        for i in range(n)
    ]


class Call:
    """One attempt, and the hooks that LiteLLM calls during it, by keyword as it does."""

    def __init__(self, callback: Any, deployment: str, *, stream: bool = False) -> None:
        self._callback = callback
        self.kwargs = {
            "litellm_call_id": uuid.uuid4().hex,
            "stream": stream,
            "litellm_params": {"model_info": {"id": deployment}, "metadata": {}},
            "completion_start_time": None,
        }
        self.data = {
            "litellm_call_id": self.kwargs["litellm_call_id"],
            "stream": stream,
            "model_info": {"id": deployment},
        }
        callback.log_pre_api_call(model="m", messages=[], kwargs=self.kwargs)

    async def succeeded(self, *, start: float = 0.0, first: float = 0.0, end: float = 0.0) -> None:
        response = SimpleNamespace(
            usage=SimpleNamespace(prompt_tokens_details=SimpleNamespace(cached_tokens=16))
        )
        times = {"start_time": at(start), "end_time": at(end)}
        self.kwargs["completion_start_time"] = at(first)
        if not self.kwargs["stream"]:
            await self._callback.async_post_call_success_deployment_hook(
                request_data=self.data, response=response, call_type=None
            )
        await self._callback.async_log_success_event(
            kwargs=self.kwargs, response_obj=response, **times
        )

    async def failed(self) -> None:
        await self._callback.async_post_call_failure_deployment_hook(
            request_data=self.data, exception=OSError(), call_type=None, fallback_depth=None
        )
        await self._callback.async_log_failure_event(
            kwargs=self.kwargs, response_obj=None, start_time=at(0), end_time=at(0)
        )


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds)
