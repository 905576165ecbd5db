"""Whether endpoints still say what was read of them: loops for the compiled core.

The interpreter specialises them for the class of the endpoints. That makes them several times as
fast as reading each attribute from outside.
"""

from collections.abc import Callable, Sequence
from typing import Any

Look = Callable[[Sequence[Any], Sequence[str]], bool]
"""Whether all endpoints have these URLs, the very strings, and may be chosen; whatever a getter
raises is raised."""


def _url(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    for endpoint, url in zip(endpoints, urls, strict=True):
        if (
            endpoint.url is not url
            or getattr(endpoint, "sleep", False)
            or not getattr(endpoint, "healthy", True)
        ):
            return False
    return True


def _sleep(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    for endpoint, url in zip(endpoints, urls, strict=True):
        if endpoint.url is not url or endpoint.sleep or not getattr(endpoint, "healthy", True):
            return False
    return True


def _healthy(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    for endpoint, url in zip(endpoints, urls, strict=True):
        if endpoint.url is not url or getattr(endpoint, "sleep", False) or not endpoint.healthy:
            return False
    return True


def _both(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    for endpoint, url in zip(endpoints, urls, strict=True):
        if endpoint.url is not url or endpoint.sleep or not endpoint.healthy:
            return False
    return True


LOOKS: tuple[Look, ...] = (_url, _sleep, _healthy, _both)
"""For endpoints with a URL alone; with `sleep`; with `healthy`; with both."""
