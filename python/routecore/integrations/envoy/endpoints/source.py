"""What the setting `endpoints` says: where a picker's endpoints come from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from routecore.errors import RouteError
from routecore.integrations.envoy.endpoints.address import Address, read

_FORMS = (
    "IP:PORT,IP:PORT…, a .yaml or .json file, dns:HOST:PORT, pool:[NAMESPACE/]NAME, "
    "service:[NAMESPACE/]NAME[:PORT] or pods:[NAMESPACE/]LABEL=VALUE,…:PORT"
)


@dataclass(frozen=True)
class Fixed:
    """Addresses that stay."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class File:
    """A file that is read again when it changes."""

    path: Path


@dataclass(frozen=True)
class Name:
    """A host name whose every address is an endpoint: a headless Service."""

    host: str
    port: int


@dataclass(frozen=True)
class InferencePool:
    """The pods and ports that an InferencePool of the cluster selects."""

    name: str
    namespace: str | None


@dataclass(frozen=True)
class Service:
    """The EndpointSlices of a Service; `port` by number or name, the first one if left out."""

    name: str
    namespace: str | None
    port: str | None


@dataclass(frozen=True)
class Pods:
    """The pods of a label selector."""

    selector: str
    namespace: str | None
    port: int


Source: TypeAlias = Fixed | File | Name | InferencePool | Service | Pods
Cluster: TypeAlias = InferencePool | Service | Pods


_HOST = re.compile(r"[\w.:%-]+|\[[\w.:%]+\]")
# Of objects in Kubernetes.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def parse(given: str | list[str]) -> Source:
    """The source that the setting names.

    Raises:
        RouteError: It names none; the text lists the forms.
    """
    if isinstance(given, list):
        return _fixed(given)
    kind, colon, rest = given.partition(":")
    if not given.strip():
        raise RouteError(f"endpoints: expected {_FORMS}")
    if colon and kind == "dns":
        host, _, port = rest.rpartition(":")
        if not _HOST.fullmatch(host):
            raise RouteError(f"endpoints {given!r}: expected dns:HOST:PORT, without http://")
        return Name(host.strip("[]"), _port(port, given))
    if colon and kind in ("pool", "service", "pods"):
        slash = rest.partition("/")
        # A label's own name may have a slash as well, after a domain; namespaces have no dots.
        spaced = bool(slash[1]) and "=" not in slash[0] and "." not in slash[0]
        namespace, name = (slash[0], slash[2]) if spaced else (None, rest)
        if namespace is not None and not _NAME.fullmatch(namespace):
            raise RouteError(f"endpoints {given!r}: {namespace!r} is no name of a namespace")
        return _cluster(kind, name, namespace, given)
    if Path(given).suffix in (".yaml", ".yml", ".json"):
        return File(Path(given))
    return _fixed(part.strip() for part in given.split(","))


def _cluster(kind: str, name: str, namespace: str | None, given: str) -> Cluster:
    if kind == "pool":
        if not _NAME.fullmatch(name):
            raise RouteError(f"endpoints {given!r}: expected pool:[NAMESPACE/]NAME")
        return InferencePool(name, namespace)
    head, colon, port = name.rpartition(":")
    if kind == "service":
        name = head if colon else name
        if not _NAME.fullmatch(name):
            raise RouteError(f"endpoints {given!r}: expected service:[NAMESPACE/]NAME[:PORT]")
        if port.isdecimal():
            _port(port, given)
        return Service(name, namespace, port if colon else None)
    if "=" not in head:
        raise RouteError(f"endpoints {given!r}: expected pods:[NAMESPACE/]LABEL=VALUE,…:PORT")
    return Pods(head, namespace, _port(port, given))


def _port(text: str, given: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise RouteError(f"endpoints {given!r}: expected a port from 1 to 65535, got {text!r}")
    return int(text)


def _fixed(given: Iterable[str]) -> Fixed:
    found = tuple(dict.fromkeys(read(text) for text in given if text))
    if not found:
        raise RouteError(f"endpoints: expected {_FORMS}")
    return Fixed(found)
