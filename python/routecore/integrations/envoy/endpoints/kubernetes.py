"""Endpoints of a Kubernetes cluster: an InferencePool's, a Service's, or those of a selector."""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from routecore.errors import RouteError
from routecore.integrations.envoy.endpoints import objects
from routecore.integrations.envoy.endpoints.file import Found
from routecore.integrations.envoy.endpoints.reflector import Reflector
from routecore.integrations.envoy.endpoints.source import Cluster, InferencePool, Service

_log = logging.getLogger("routecore.picker")
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GROUP, _VERSION, _PLURAL = "inference.networking.k8s.io", "v1", "inferencepools"


async def connect() -> Any:
    """A client of the cluster around us, else of the one that the kubeconfig names.

    Raises:
        RouteError: There is neither.
        ImportError: Names the extra that is missing.
    """
    try:
        from kubernetes_asyncio import client, config
    except ModuleNotFoundError as error:
        raise ImportError(
            "endpoints of a cluster need: pip install 'routecore[envoy-kubernetes]'"
        ) from error
    made = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            load: Any = config.load_incluster_config
            load(client_configuration=made)
        else:
            file = os.environ.get("KUBECONFIG")
            await config.load_kube_config(config_file=file, client_configuration=made)
    except config.ConfigException as error:
        raise RouteError(f"endpoints: no cluster: {error}") from None
    return client.ApiClient(made)


def namespace_of(source: Cluster) -> str:
    """The namespace that the source names, else ours."""
    if source.namespace:
        return source.namespace
    with suppress(OSError):
        return _NAMESPACE.read_text("utf-8").strip()
    return "default"


async def watch(source: Cluster, found: Found) -> None:
    """Tell of the cluster's endpoints at each change.

    Raises:
        RouteError: There is no cluster.
        ImportError: Names the extra that is missing.
    """
    api = await connect()
    namespace = namespace_of(source)
    try:
        if isinstance(source, InferencePool):
            await _pool(api, namespace, source.name, found)
        elif isinstance(source, Service):
            await _service(api, namespace, source, found)
        else:
            await _pods(api, namespace, source.selector, (source.port,), found)
    finally:
        await api.close()


async def _pods(
    api: Any, namespace: str, selector: str, ports: tuple[int, ...], found: Found
) -> None:
    from kubernetes_asyncio import client

    await Reflector(
        client.CoreV1Api(api).list_namespaced_pod,
        objects.Pod,
        f"pods {selector} in {namespace}",
        lambda pods: found(objects.of_pods(pods.values(), ports)),
        namespace=namespace,
        label_selector=selector,
    ).run()


async def _service(api: Any, namespace: str, source: Service, found: Found) -> None:
    from kubernetes_asyncio import client

    await Reflector(
        client.DiscoveryV1Api(api).list_namespaced_endpoint_slice,
        objects.Slice,
        f"slices of {source.name} in {namespace}",
        lambda slices: found(objects.of_slices(slices.values(), source.port)),
        namespace=namespace,
        label_selector=f"kubernetes.io/service-name={source.name}",
    ).run()


async def _pool(api: Any, namespace: str, name: str, found: Found) -> None:
    """Follow the pool, and the pods of whatever selector and ports it has."""
    from kubernetes_asyncio import client

    following: list[asyncio.Task[None]] = []
    current: list[tuple[str, tuple[int, ...]]] = []

    def changed(pools: dict[tuple[str, str], objects.PoolObject]) -> None:
        pool = pools.get((namespace, name))
        wanted = [(pool.selector, pool.ports)] if pool is not None and pool.selector else []
        if not wanted:
            why = "there is none" if pool is None else "it selects nothing"
            _log.warning("InferencePool %s/%s: %s; no endpoints", namespace, name, why)
            found({})
        if wanted == current:
            return
        current[:] = wanted
        while following:
            following.pop().cancel()
        for selector, ports in wanted:
            task = asyncio.create_task(_pods(api, namespace, selector, ports, found))
            following.append(task)

    pools = Reflector(
        client.CustomObjectsApi(api).list_namespaced_custom_object,
        objects.PoolObject,
        f"InferencePool {namespace}/{name}",
        changed,
        group=_GROUP,
        version=_VERSION,
        namespace=namespace,
        plural=_PLURAL,
        field_selector=f"metadata.name={name}",
    )
    try:
        await pools.run()
    finally:
        for task in following:
            task.cancel()
