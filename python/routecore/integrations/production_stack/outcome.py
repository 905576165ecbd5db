"""What an attempt's end says of its engine, in the words of `on_request_failed`."""

import asyncio
from typing import Any

import aiohttp

from routecore.endpoints.health import Reason

# Nobody was reached. (A refused connection, DNS, TLS; a proxy's own refusal too.)
_CONNECT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientSSLError,
    aiohttp.InvalidURL,
)


def of_error(error: BaseException) -> Reason:
    """The reason of a request that ended in an exception of the HTTP client."""
    if isinstance(error, asyncio.CancelledError):
        return "client"
    if isinstance(error, _CONNECT):
        return "connect"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return "broken"
    return "unknown"


def is_whole(answer: Any) -> bool:
    """Whether all of an answer came; the host calls one complete that was cut as well."""
    return answer is None or bool(answer.content.is_eof())


def of_cut(answer: Any) -> Reason:
    """The reason of an answer that began well and did not come to its end.

    The client keeps on it what broke the stream. Without that it was not the engine: who asked
    has left.
    """
    error = answer.content.exception()
    # This very class, and no subclass, is what the client leaves behind when it is closed.
    if error is None or type(error) is aiohttp.ClientConnectionError:
        return "client"
    return of_error(error)
