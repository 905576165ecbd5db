"""What an exception of LiteLLM says of the deployment, in the words of `on_request_failed`.

LiteLLM dresses every fault as one of OpenAI's: a refused connection becomes a status 500 that
nobody sent. What the HTTP client met is in the chain behind it.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

from routecore.endpoints.health import Reason
from routecore.integrations.shared.retry_after import seconds_of

# By name: httpx, httpcore, aiohttp and openai name them, and none of them need be there.
_CONNECT = frozenset(
    (
        *("ConnectError", "ConnectTimeout", "ConnectionTimeoutError", "ConnectionRefusedError"),
        *("ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorSSLError"),
        *("ClientConnectorCertificateError", "SSLError", "SSLCertVerificationError", "gaierror"),
    )
)
_TIMEOUT = frozenset(
    (
        *("Timeout", "APITimeoutError", "ReadTimeout", "WriteTimeout", "PoolTimeout"),
        *("TimeoutError", "ServerTimeoutError", "SocketTimeoutError"),
    )
)
_BROKEN = frozenset(
    (
        *("ReadError", "WriteError", "CloseError", "RemoteProtocolError", "ClientPayloadError"),
        *("ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError"),
        *("ConnectionResetError", "BrokenPipeError", "IncompleteRead", "TransferEncodingError"),
    )
)
_FAULTS: tuple[tuple[Reason, frozenset[str]], ...] = (
    ("connect", _CONNECT),
    ("timeout", _TIMEOUT),
    ("broken", _BROKEN),
)
_LEFT = (asyncio.CancelledError, GeneratorExit)
# LiteLLM cools a deployment down for these as well: the keys and names are its own, not the
# client's.
_DEPLOYMENTS = (401, 404)
_DEEP = 16  # exceptions behind one that are looked at


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        reason: As `on_request_failed` takes it; None for an error of the client's own.
        status: The answer's, if there was one.
        retry_after: Seconds that the answer asks to wait.
    """

    reason: Reason | None
    status: int | None = None
    retry_after: float | None = None


def of_exception(error: Any) -> Outcome:
    """How the call that raised it ended."""
    if not isinstance(error, BaseException):
        return Outcome("unknown")
    if isinstance(error, _LEFT):
        return Outcome("client")
    headers = _headers(error)
    names = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    status = getattr(error, "status_code", None)
    if headers is None:
        for reason, known in _FAULTS:
            if not known.isdisjoint(names):
                return Outcome(reason)
        if "APIConnectionError" in names:
            return Outcome("connect")
    if not isinstance(status, int):
        return Outcome("unknown")
    if status in (429, 503):
        return Outcome("busy", status, seconds_of((headers or {}).get("retry-after")))
    if status == 408:
        return Outcome("timeout", status)
    if status >= 500 or status in _DEPLOYMENTS:
        return Outcome("status", status)
    return Outcome(None, status) if status >= 400 else Outcome("unknown")


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(_DEEP):
        if link is None:
            return
        yield link
        # LiteLLM keeps the fault in the middle of a stream here.
        original = getattr(link, "original_exception", None)
        link = link.__cause__ or link.__context__ or original


def _headers(error: BaseException) -> Any:
    """Headers of the answer, in small letters or case-blind; None if there was no answer."""
    for found in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        if found:  # LiteLLM makes an answer up, without headers, where there was none
            return found
    return None
