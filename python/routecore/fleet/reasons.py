"""What an exception says of the engine that a request was sent to."""

from routecore.endpoints.health import Reason

_CONNECT = frozenset({"ConnectionRefusedError", "gaierror", "SSLError", "ConnectError"})
_CONNECT |= {"ClientConnectorError", "ConnectTimeout", "ServerConnectionError"}
_TIMEOUT = frozenset({"TimeoutError", "TimeoutException", "ServerTimeoutError"})
_CLIENT = frozenset({"CancelledError", "GeneratorExit", "KeyboardInterrupt", "ClientDisconnect"})


def reason_of(error: BaseException, *, answered: bool = False) -> Reason:
    """What an exception says of the engine, by its class or that of the library it comes from.

    Args:
        error: As raised by `socket`, asyncio, httpx, aiohttp or another client.
        answered: Whether a first token had come back.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _CLIENT:
        return "client"
    if names & _CONNECT:
        return "connect"
    if names & _TIMEOUT:
        return "timeout"
    return "broken" if answered else "unknown"
