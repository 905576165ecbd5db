"""Which channel an address means."""

from routecore.errors import RouteError
from routecore.replicas.channel import Channel


def channel_of(address: str, group: str = "default") -> Channel:
    """The channel of an address: `redis://…`, `rediss://…`, `zmq://…`, `zmq+ipc://…` or `ray`.

    Raises:
        RouteError: The address is none of these.
        ImportError: The channel needs a package that is missing; names the extra to install.
    """
    word = address.partition(":")[0].lower()
    if word in ("redis", "rediss", "unix", "valkey", "valkeys"):
        from routecore.replicas.over_redis import RedisChannel

        return RedisChannel(address, group)
    if word in ("zmq", "zmq+ipc"):
        from routecore.replicas.over_zmq import ZMQChannel

        return ZMQChannel(address)
    if word == "ray":
        from routecore.replicas.over_ray import RayChannel

        return RayChannel(group)
    raise RouteError(
        f"replicas {address!r}: expected redis://…, rediss://…, zmq://…, zmq+ipc:///folder or ray"
    )
