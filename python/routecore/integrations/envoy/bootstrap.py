"""The configuration of a plain Envoy in front of a picker."""

from typing import Any

from routecore.errors import RouteError
from routecore.integrations.envoy.endpoints import file
from routecore.integrations.envoy.endpoints.address import Address, listening
from routecore.integrations.envoy.endpoints.source import File, Fixed, Name
from routecore.integrations.envoy.health import EXT_PROC
from routecore.integrations.envoy.responses import DESTINATION, NAMESPACE
from routecore.integrations.envoy.settings import Settings

_TYPE = "type.googleapis.com/envoy."
_LONG = "86400s"  # of an answer; a gateway's own 15 s would end most of them
# As far as a message of the gateway's may wait for its answer: a pick, or the hold.
_ANSWER, _HELD = "30s", "1000s"


def bootstrap(
    settings: Settings,
    *,
    port: int = 8080,
    address: str = "0.0.0.0",
    admin: int | None = None,
    buffered: bool = False,
) -> dict[str, Any]:
    """An Envoy bootstrap that asks this picker for each request.

    Args:
        settings: The picker's.
        port: Where Envoy listens.
        address: On which interface.
        admin: Port of Envoy's admin page on the loopback; none without.
        buffered: Hand the picker whole bodies in one message, instead of the standard's streams.

    Raises:
        RouteError: The endpoints are a cluster's, whose gateway has its own configuration; or the
            picker has no port, or Envoy's.
    """
    if listening(settings.listen)[1] in (0, port):
        raise RouteError(
            f"print-envoy: the picker's listen {settings.listen!r} needs a port of its own"
        )
    made: dict[str, Any] = {
        "static_resources": {
            "listeners": [_listener(settings, address, port, buffered)],
            "clusters": [_engines(settings), _picker(settings)],
        }
    }
    if admin is not None:
        made["admin"] = {"address": _socket("127.0.0.1", admin)}
    return made


def _listener(settings: Settings, address: str, port: int, buffered: bool) -> dict[str, Any]:
    retry = {"retry_on": "connect-failure,refused-stream", "num_retries": settings.fallbacks}
    route: dict[str, Any] = {"cluster": "engines", "timeout": _LONG}
    if settings.fallbacks:
        route["retry_policy"] = retry
    hosts = [
        {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
    ]
    router = _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    manager = _typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="ingress",
        route_config={"name": "all", "virtual_hosts": hosts},
        http_filters=[ext_proc(settings, buffered=buffered), router],
        stream_idle_timeout=_LONG,
    )
    made: dict[str, Any] = {
        "name": "ingress",
        "address": _socket(address, port),
        "filter_chains": [{"filters": [manager]}],
    }
    if buffered:
        made["per_connection_buffer_limit_bytes"] = settings.max_body_bytes
    return made


def ext_proc(settings: Settings, *, buffered: bool = False) -> dict[str, Any]:
    """The filter that asks the picker."""
    return _typed(
        "envoy.filters.http.ext_proc",
        "extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "picker"}},
        # Answers on their way go on when a picker is gone; new requests fail, but for those in
        # buffered mode.
        failure_mode_allow=True,
        message_timeout=_HELD if settings.hold else _ANSWER,
        processing_mode={
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED" if buffered else "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SKIP" if buffered else "SEND",
            "response_header_mode": "SEND",
            "response_body_mode": "STREAMED" if settings.usage else "NONE",
            # What keeps the stream open until the answer ends, so that it counts until then.
            "response_trailer_mode": "SEND",
        },
        metadata_options={
            "forwarding_namespaces": {"untyped": [NAMESPACE, "envoy.lb.subset_hint"]},
            "receiving_namespaces": {"untyped": [NAMESPACE]},
        },
        response_attributes=["upstream.address", "response.flags"],
    )


def _engines(settings: Settings) -> dict[str, Any]:
    source = settings.source()
    if isinstance(source, Fixed):
        kind, hosts = "STATIC", [_host(address) for address in source.addresses]
    elif isinstance(source, File):
        kind, hosts = "STATIC", [_host(address) for address in file.load(source.path)]
    elif isinstance(source, Name):
        kind = "STRICT_DNS"
        hosts = [{"endpoint": {"address": _socket(source.host, source.port)}}]
    else:
        raise RouteError(
            "print-envoy: a cluster's gateway has its own configuration; see deploy/kubernetes"
        )
    fallback = _policy("round_robin", "round_robin.v3.RoundRobin")
    policy = _policy(
        "override_host",
        "override_host.v3.OverrideHost",
        override_host_sources=[
            {"header": DESTINATION},
            {"metadata": {"key": NAMESPACE, "path": [{"key": DESTINATION}]}},
        ],
        fallback_policy={"policies": [fallback]},
    )
    return {
        "name": "engines",
        "type": kind,
        "connect_timeout": "2s",
        "load_balancing_policy": {"policies": [policy]},
        "load_assignment": _assignment("engines", hosts),
        "circuit_breakers": _generous(),
    }


def _picker(settings: Settings) -> dict[str, Any]:
    host, port = listening(settings.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    options: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    if settings.workers > 1:  # a connection goes to one worker: more of them reach all
        options["explicit_http_config"]["http2_protocol_options"] = {"max_concurrent_streams": 16}
    made: dict[str, Any] = {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                **options,
            }
        },
        "load_assignment": _assignment("picker", [{"endpoint": {"address": _socket(host, port)}}]),
        "circuit_breakers": _generous(),
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": EXT_PROC},
            }
        ],
    }
    if settings.tls_certificate:
        made["transport_socket"] = _typed(
            "envoy.transport_sockets.tls",
            "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context={"alpn_protocols": ["h2"]},
        )
    return made


def _policy(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    name = f"envoy.load_balancing_policies.{name}"
    return {
        "typed_extension_config": _typed(
            name, f"extensions.load_balancing_policies.{kind}", **fields
        )
    }


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": _TYPE + kind, **fields}}


def _assignment(name: str, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}


def _host(address: Address) -> dict[str, Any]:
    host, _, port = address.text.rpartition(":")
    return {"endpoint": {"address": _socket(host.strip("[]"), int(port))}}


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _generous() -> dict[str, Any]:
    most = {"max_connections": 40_000, "max_pending_requests": 40_000, "max_requests": 40_000}
    return {"thresholds": [most]}
