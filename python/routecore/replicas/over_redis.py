"""Messages by publish and subscribe on a Redis or Valkey server."""

from typing import Any

from routecore.errors import RouteError

try:
    import redis
except ModuleNotFoundError as _missing:
    raise ImportError(
        "replicas over Redis need redis: pip install 'routecore[replicas]'"
    ) from _missing

_SECONDS = 1.0
"""Longest that a call waits for the server."""


class RedisChannel:
    """Publishes on one channel of the server, and subscribes to it.

    Nothing is kept on the server. A router that joins is answered by all others at once.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, `rediss://…` with TLS (`ssl_ca_certs` and
            the like as parameters), `unix:///path`; `valkey://…` and `valkeys://…` are the same.
        group: Part of the channel's name.

    Raises:
        RouteError: If the address cannot be used.
    """

    every: float = 0.05

    def __init__(self, url: str, group: str = "default") -> None:
        # The client knows the older of the two names alone.
        self._url = f"redis{url.removeprefix('valkey')}" if url.startswith("valkey") else url
        self._name = f"routecore:replicas:{group}"
        self._sender: redis.Redis | None = None
        self._hearer: Any = None
        self._client()  # so that a wrong address shows at once

    def _client(self) -> "redis.Redis":
        try:
            return redis.Redis.from_url(
                self._url,
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
                socket_keepalive=True,
                client_name="routecore",
            )
        except (ValueError, TypeError) as error:
            raise RouteError(f"replicas {self._shown()}: {error}") from None

    def _shown(self) -> str:
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"  # a password stays out of logs

    def open(self) -> None:
        self._sender = self._client()
        client: Any = self._client()
        self._hearer = client.pubsub(ignore_subscribe_messages=True)
        self._hearer.subscribe(self._name)

    def send(self, message: bytes) -> None:
        sender = self._sender
        if sender is not None:
            sender.publish(self._name, message)

    def receive(self, timeout: float) -> list[bytes]:
        hearer = self._hearer
        found: list[bytes] = []
        wait = timeout
        # No more than a turn's worth at once: who floods the channel stops nothing else.
        while len(found) < 256:
            message = hearer.get_message(timeout=wait)
            if message is None:
                return found
            if isinstance(message.get("data"), bytes):
                found.append(message["data"])
            wait = 0.0
        return found

    def close(self) -> None:
        sender, hearer = self._sender, self._hearer
        self._sender = self._hearer = None
        if hearer is not None:
            hearer.close()
        if sender is not None:
            sender.close()

    def after_fork(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self._sender = self._hearer = None
