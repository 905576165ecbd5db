"""What the operator of a picker chose: the settings of all hosts, and what only a picker has."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from routecore.errors import RouteError
from routecore.hold import HoldLimits
from routecore.integrations.envoy.endpoints.address import listening
from routecore.integrations.envoy.endpoints.source import Source, parse
from routecore.integrations.envoy.tls import checked_pair
from routecore.integrations.shared import defaults, misspelt, settings

MAX_FALLBACKS = 8
MAX_WORKERS = 64


class Settings(settings.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of a picker; see `shared.settings.Settings` for the fields of all hosts.

    Attributes:
        strategy: A word of `routecore strategies`.
        endpoints: Where the endpoints are: addresses, a file, or a name in DNS or Kubernetes, as
            `endpoints.source.parse` reads it.
        listen: Address and port of the gRPC server.
        metrics_port: Port of `/metrics` and `/held`; of worker n, this plus n. None: not served.
        workers: Processes that share the port.
        fallbacks: Endpoints named after the chosen one, for the gateway's retries.
        usage: Read `usage` and the time of the first token from response bodies, which the gateway
            must then send.
        scrape_every: Seconds between two scrapes of each engine's metrics; 0 for never.
        metrics_path: Where engines serve them.
        hold: Requests wait until the endpoint chosen for them has room in its KV cache.
        hold_limits: Fields of `routecore.HoldLimits`, its bounds.
        max_body_bytes: A request with a larger body is answered with 413.
        chunk_bytes: Bytes of a body in one message to the gateway.
        drain_delay: Seconds after SIGTERM in which requests are still taken, while the health
            service says that no more should come.
        drain_timeout: Seconds after that until what is still open is let go of.
        dns_every: Seconds between two look-ups of a name in DNS.
        health_port: Port of the health services alone, in plain text, beside those of `listen`: for
            Kubernetes' probes, which speak no TLS.
        tls_certificate: PEM file of the server's certificate chain; plain text without.
        tls_key: PEM file of its key.
    """

    strategy: str = defaults.ENVOY
    endpoints: str | list[str] = ""
    listen: str = "0.0.0.0:9002"
    metrics_port: int | None = 9090
    workers: int = 1
    fallbacks: int = 2
    usage: bool = False
    scrape_every: float = 1.0
    metrics_path: str = "/metrics"
    hold: bool = False
    hold_limits: dict[str, Any] = msgspec.field(default_factory=dict)
    max_body_bytes: int = 64 << 20
    chunk_bytes: int = 62_000
    drain_delay: float = 5.0
    drain_timeout: float = 20.0
    dns_every: float = 5.0
    health_port: int | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None

    def source(self) -> Source:
        """Where the endpoints come from.

        Raises:
            RouteError: There is none, or it cannot be read.
        """
        return parse(self.endpoints)

    def limits(self) -> HoldLimits:
        """The bounds of the hold.

        Raises:
            RouteError: A key or value is wrong.
        """
        try:
            return msgspec.convert(self.hold_limits, HoldLimits)
        except msgspec.ValidationError as error:
            said = misspelt.field(str(error), HoldLimits.__struct_fields__)
            raise RouteError(f"hold_limits: {said}") from None


def load(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a picker: the command line before variables before the file.

    Raises:
        RouteError: A value is wrong or cannot be honoured; the text names it.
    """
    found = Settings.of({**Settings.read(environ), **given})
    found.checked()
    found.source()
    _ranges(found)
    _ports(found)
    _in_vain(found)
    if found.hold_limits and not found.hold:
        raise RouteError("hold_limits: need hold = true")
    found.limits()
    if found.hold and found.mode == "shadow":
        raise RouteError("hold: in shadow mode the gateway chooses, and nothing waits")
    if found.workers > 1 and found.replicas is not None and found.replicas.startswith("zmq:"):
        raise RouteError(
            f"replicas {found.replicas!r}: one port is of one process, not of {found.workers} "
            "workers; use redis://…, or leave it out: workers share by themselves"
        )
    checked_pair(found.tls_certificate, found.tls_key)
    return found


def _ranges(found: Settings) -> None:
    _, port = listening(found.listen)
    if found.workers > 1 and port == 0:
        raise RouteError("listen: workers share a port, which must be named; got port 0")
    numbers: tuple[tuple[str, float, float, float], ...] = (
        ("workers", found.workers, 1, MAX_WORKERS),
        ("fallbacks", found.fallbacks, 0, MAX_FALLBACKS),
        ("max_body_bytes", found.max_body_bytes, 1024, 1 << 30),
        ("chunk_bytes", found.chunk_bytes, 1024, 1 << 20),
        ("metrics_port", found.metrics_port or 0, 0, 65535),
        ("health_port", found.health_port or 0, 0, 65535),
        ("drain_delay", found.drain_delay, 0, 3600),
        ("drain_timeout", found.drain_timeout, 0, 86_400),
        ("dns_every", found.dns_every, 0.1, 3600),
        ("lease_timeout", found.lease_timeout, 1e-3, 1e9),
    )
    for name, value, low, high in numbers:
        if not low <= value <= high:
            raise RouteError(f"{name}: expected a number from {low:g} to {high:g}, got {value:g}")
    if found.scrape_every != 0 and not 0.05 <= found.scrape_every <= 3600:
        raise RouteError(
            "scrape_every: expected seconds from 0.05 to 3600, or 0 for never, "
            f"got {found.scrape_every:g}"
        )


def _ports(found: Settings) -> None:
    """No port twice, and none beyond the last."""
    _, port = listening(found.listen)
    taken = {port: "listen"} if port else {}
    wanted = []
    if found.metrics_port:
        last = found.metrics_port + found.workers - 1
        if last > 65535:
            raise RouteError(f"metrics_port: that of worker {found.workers - 1} would be {last}")
        wanted += [("metrics_port", number) for number in range(found.metrics_port, last + 1)]
    if found.health_port:
        wanted.append(("health_port", found.health_port))
    for name, number in wanted:
        if number in taken:
            raise RouteError(f"{name}: port {number} is that of {taken[number]}")
        taken[number] = name


def _in_vain(found: Settings) -> None:
    """Settings that would change nothing."""
    hears = bool(found.kv_events) or found.kv_events_port is not None
    if hears and "kv_index" not in found.accepts():
        raise RouteError(
            f"kv_events: {found.strategy} reads none; expected prefix_cache or expected_latency"
        )
    for name in ("tokenizer", "kv_replay_port"):
        if getattr(found, name) is not None and not hears:
            raise RouteError(f"{name}: only KV events need it; set kv_events or kv_events_port")
    if not found.metrics_path.startswith("/"):
        raise RouteError(f"metrics_path: expected /…, got {found.metrics_path!r}")
    folder = Path(found.shadow_file).parent
    if found.mode == "shadow" and not os.access(folder, os.W_OK | os.X_OK):
        raise RouteError(f"shadow_file {found.shadow_file!r}: cannot write into {str(folder)!r}")
