"""The standard gRPC health service, by the names that gateways and kubelets ask for."""

from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
_READY = ("", "readiness", EXT_PROC)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """`liveness` always serves; `readiness` and the picker's own name do once endpoints are known.

    Args:
        servers: gRPC servers, before their start.
    """

    def __init__(self, *servers: Any) -> None:
        self._servicer = health.aio.HealthServicer()
        for server in servers:
            health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        self.is_ready: bool | None = None

    async def start(self) -> None:
        """Alive, and not ready yet."""
        await self._servicer.set("liveness", _SERVING)
        await self.set_ready(False)

    async def set_ready(self, ready: bool) -> None:
        """Tell gateways whether to send requests here."""
        if ready is not self.is_ready:
            self.is_ready = ready
            for name in _READY:
                await self._servicer.set(name, _SERVING if ready else _NOT_SERVING)
