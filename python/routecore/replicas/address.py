"""Which channel an address means."""

import difflib

from routecore.errors import RouteError
from routecore.replicas.channel import Channel

_REDIS = ("redis", "rediss", "valkey", "valkeys", "unix")
_ZMQ = ("zmq", "ipc", "zmq+ipc")
_NEAR = {
    **{"zmq+tcp": "zmq", "tcp": "zmq", "zeromq": "zmq", "file": "ipc", "zmq+unix": "ipc"},
    **{"redis+tls": "rediss", "redis+ssl": "rediss", "valkey+tls": "valkeys"},
    **{"redis+socket": "unix", "redis+unix": "unix", "http": "redis", "https": "rediss"},
}
"""What is probably meant by schemes that are none."""
_PORTS = {"6379": "redis", "6380": "rediss"}


def channel_of(address: str, group: str = "default") -> Channel:
    """The channel of an address: `redis://…` or `valkey://…`, with TLS `rediss://…` or `valkeys://…`,
    `unix:///socket` of such a server, `zmq://…`, `ipc:///folder`, or `ray`.

    Raises:
        RouteError: The address is none of these; says what was probably meant.
        ImportError: The channel needs a package that is missing; names the extra to install.
    """
    scheme, colon, rest = address.partition("://")
    word = scheme.lower() if colon else ""
    if word in _REDIS:
        from routecore.replicas.over_redis import RedisChannel

        return RedisChannel(f"{word}://{rest}", group)
    if word in _ZMQ:
        from routecore.replicas.over_zmq import ZMQChannel

        return ZMQChannel(f"{word}://{rest}")
    if address.lower() == "ray":
        from routecore.replicas.over_ray import RayChannel

        return RayChannel(group)
    meant = _meant(shown(address))
    raise RouteError(
        f"replicas {shown(address)!r}: expected redis://…, rediss://…, valkey://…, zmq://…, "
        f"ipc:///folder or ray" + (f"; did you mean {meant}?" if meant else "")
    )


def shown(address: str) -> str:
    """The address without user and password: they stay out of logs."""
    scheme, colon, rest = address.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"


def _meant(address: str) -> str | None:
    """What was probably meant by an address that is none."""
    scheme, colon, rest = address.partition("://")
    if colon:
        known = [*_REDIS, *_ZMQ, "ray"]
        close = difflib.get_close_matches(scheme.lower(), known, 1)
        word = _NEAR.get(scheme.lower(), close[0] if close else None)
        return word if word in (None, "ray") else f"{word}://{rest}"
    if address.startswith("/"):
        return f"ipc://{address}"
    host, colon, port = address.rpartition(":")
    if not host or not port.isdigit():
        return None
    return (
        f"{_PORTS[port]}://{address}" if port in _PORTS else f"redis://{address} or zmq://{address}"
    )
