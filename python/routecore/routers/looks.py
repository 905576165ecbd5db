"""Whether endpoints still say what was read of them: loops for the compiled core.

The interpreter specialises them for the class of the endpoints. That makes them several times as
fast as reading each attribute from outside. `zip` and `enumerate` would cost more than they save.
"""

from collections.abc import Callable, Sequence
from typing import Any

Look = Callable[[Sequence[Any], Sequence[str]], bool]
"""Whether all endpoints have these URLs, the very strings, and may be chosen; whatever a getter
raises is raised."""


def _url(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    at = 0
    for endpoint in endpoints:
        if (
            endpoint.url is not urls[at]
            or getattr(endpoint, "sleep", False)
            or not getattr(endpoint, "healthy", True)
        ):
            return False
        at += 1
    return at == len(urls)


def _sleep(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    at = 0
    for endpoint in endpoints:
        if endpoint.url is not urls[at] or endpoint.sleep or not getattr(endpoint, "healthy", True):
            return False
        at += 1
    return at == len(urls)


def _healthy(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    at = 0
    for endpoint in endpoints:
        if (
            endpoint.url is not urls[at]
            or getattr(endpoint, "sleep", False)
            or not endpoint.healthy
        ):
            return False
        at += 1
    return at == len(urls)


def _both(endpoints: Sequence[Any], urls: Sequence[str]) -> bool:
    at = 0
    for endpoint in endpoints:
        if endpoint.url is not urls[at] or endpoint.sleep or not endpoint.healthy:
            return False
        at += 1
    return at == len(urls)


LOOKS: tuple[Look, ...] = (_url, _sleep, _healthy, _both)
"""For endpoints with a URL alone; with `sleep`; with `healthy`; with both."""
