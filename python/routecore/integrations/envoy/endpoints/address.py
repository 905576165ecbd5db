"""Addresses as gateways write them: `10.0.0.1:8000`, `[fd00::1]:8000`."""

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from routecore.errors import RouteError


class Address(NamedTuple):
    """One endpoint.

    Attributes:
        text: As the gateway knows it, IP and port.
        url: As strategies, log and metrics know it.
    """

    text: str
    url: str


def of(ip: str, port: int, scheme: str = "http") -> Address:
    """The address of a port of a host.

    Raises:
        RouteError: `ip` is no IP address, or the port none.
    """
    try:
        host = ipaddress.ip_address(ip)
    except ValueError:
        raise RouteError(
            f"endpoint {ip!r}: expected an IP address, which is all that a gateway accepts; "
            "name a host as dns:HOST:PORT"
        ) from None
    if host.is_unspecified or host.is_multicast:
        raise RouteError(f"endpoint {ip!r}: nobody is reached there; expected the engine's own IP")
    if not 0 < port < 65536:
        raise RouteError(f"endpoint {ip!r}: expected a port from 1 to 65535, got {port}")
    text = f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"
    return Address(text, f"{scheme}://{text}")


def read(given: str) -> Address:
    """An address in text, perhaps as a URL.

    Raises:
        RouteError: It is none.
    """
    parts = _split(given if "//" in given else f"http://{given}", given)
    if parts.port is None or parts.hostname is None:
        raise RouteError(f"endpoint {given!r}: expected IP:PORT, such as 10.0.0.1:8000")
    if parts.path not in ("", "/") or parts.scheme not in ("http", "https"):
        raise RouteError(f"endpoint {given!r}: expected IP:PORT alone, such as 10.0.0.1:8000")
    return of(parts.hostname, parts.port, parts.scheme)


def listening(given: str) -> tuple[str, int]:
    """Host and port to listen on; port 0: any.

    Raises:
        RouteError: It is neither `HOST:PORT` nor `:PORT`.
    """
    parts = _split(f"http://{given}", given)
    if parts.port is None or parts.path or parts.username is not None:
        raise RouteError(f"listen {given!r}: expected HOST:PORT, such as 0.0.0.0:9002")
    return parts.hostname or "0.0.0.0", parts.port


def probe(host: str, port: int, *, shared: bool) -> None:
    """Try to listen there; gRPC would not say why it cannot.

    Args:
        host: A name or an address.
        port: 0: any.
        shared: Whether other processes listen there, too.

    Raises:
        OSError: Nobody can listen there, or somebody does.
    """
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        tried.bind(address)
        tried.listen()


class _Parts(NamedTuple):
    scheme: str
    hostname: str | None
    port: int | None
    path: str
    username: str | None


def _split(url: str, given: str) -> _Parts:
    try:
        parts = urlsplit(url)
        return _Parts(parts.scheme, parts.hostname, parts.port, parts.path, parts.username)
    except ValueError as error:
        raise RouteError(f"address {given!r}: {error}") from None
