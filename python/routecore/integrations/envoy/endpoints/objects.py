"""What of a cluster's objects makes endpoints."""

from collections.abc import Iterable

import msgspec

from routecore.integrations.envoy.endpoints.address import Address, of
from routecore.integrations.envoy.endpoints.reflector import Meta


class _Condition(msgspec.Struct, frozen=True):
    type: str = ""
    status: str = ""


class _PodStatus(msgspec.Struct, frozen=True, rename={"pod_ip": "podIP"}):
    pod_ip: str = ""
    phase: str = ""
    conditions: tuple[_Condition, ...] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: Meta
    status: _PodStatus = _PodStatus()

    @property
    def is_ready(self) -> bool:
        """Whether it may get requests: ready, and not about to go."""
        conditions = self.status.conditions or ()
        ready = any(c.type == "Ready" and c.status == "True" for c in conditions)
        return ready and self.metadata.deletion_timestamp is None


def of_pods(pods: Iterable[Pod], ports: Iterable[int]) -> dict[Address, bool]:
    """The endpoints of pods: each target port of each pod that has an address and has not ended."""
    found: dict[Address, bool] = {}
    wanted = tuple(ports)
    for pod in pods:
        if not pod.status.pod_ip or pod.status.phase in ("Succeeded", "Failed"):
            continue
        for port in wanted:
            address = of(pod.status.pod_ip, port)
            # An ended pod's address may be another's by now: it is ready if one of them is.
            found[address] = found.get(address, False) or pod.is_ready
    return found


class _Selector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] = {}


class _Port(msgspec.Struct, frozen=True):
    number: int


class _PoolSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: _Selector
    target_ports: tuple[_Port, ...]


class PoolObject(msgspec.Struct, frozen=True):
    """An InferencePool (inference.networking.k8s.io/v1)."""

    metadata: Meta
    spec: _PoolSpec

    @property
    def selector(self) -> str:
        """Its pods' labels, as the API takes them."""
        labels = self.spec.selector.match_labels
        return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))

    @property
    def ports(self) -> tuple[int, ...]:
        """Its target ports."""
        return tuple(port.number for port in self.spec.target_ports)


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None


class _SliceEndpoint(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: _Conditions | None = None


class _SlicePort(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class Slice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    metadata: Meta
    address_type: str = ""
    endpoints: tuple[_SliceEndpoint, ...] | None = None
    ports: tuple[_SlicePort, ...] | None = None

    def port(self, wanted: str | None) -> int | None:
        """The port of that name or number; the first one for None."""
        for port in self.ports or ():
            if port.port is not None and wanted in (None, port.name, str(port.port)):
                return port.port
        return None


def of_slices(slices: Iterable[Slice], wanted: str | None) -> dict[Address, bool]:
    """The endpoints of a Service's slices. What is listed twice is ready if one says so."""
    found: dict[Address, bool] = {}
    for part in slices:
        port = part.port(wanted)
        if port is None or part.address_type == "FQDN":
            continue
        for endpoint in part.endpoints or ():
            # Without a word of it, it is ready.
            ready = endpoint.conditions is None or endpoint.conditions.ready is not False
            for ip in endpoint.addresses[:1]:
                address = of(ip, port)
                found[address] = found.get(address, False) or ready
    return found
