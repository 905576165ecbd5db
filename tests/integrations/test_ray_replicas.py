"""Routers in several processes of a Ray cluster that tell each other of their load."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray_cluster

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: make test-hosts")

import ray
from ports import free_port
from ray import serve
from ray.serve.config import RequestRouterConfig
from replica_servers import until
from routecore import Fleet

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray_serve,
    # Ray's own deprecations are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

CLASS = "routecore.integrations.ray_serve.RoutecoreRequestRouter"
URLS = ("http://a:1", "http://b:1")
LONG = 180.0  # seconds; nothing here takes more than a few, unless the machine is busy


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with ray_cluster.local_serve(free_port()):
        yield


def others(fleet: Any) -> int:
    """Requests that a fleet has heard of."""
    return sum(fleet.replicas.others(url) for url in fleet.table.urls if url is not None)


def total(fleet: Any) -> int:
    return int(fleet.table.column("in_flight").sum())


class Gateway:
    """A router in an actor, whose methods run on an event loop, as those of Serve do."""

    def __init__(self) -> None:
        self._fleet = Fleet(URLS, "least_connections", replicas="ray")

    async def send(self, count: int) -> int:
        for _ in range(count):
            self._fleet.request().__enter__()
        return os.getpid()

    async def others(self) -> int:
        return others(self._fleet)

    async def close(self) -> None:
        self._fleet.close()


def relay() -> Any:
    return ray.get_actor("routecore-replicas-default", namespace="routecore")


def test_processes_of_a_cluster_hear_each_other_whatever_becomes_of_the_actor() -> None:
    made = ray.remote(num_cpus=0)(Gateway)
    one, two = made.remote(), made.remote()

    def hears(who: Any, count: int) -> bool:
        return bool(ray.get(who.others.remote()) == count)

    ray.get(one.send.remote(3))
    until(lambda: hears(two, 3), "the second has not heard of the first", LONG)
    ray.kill(relay(), no_restart=False)  # as with its node: Ray starts it elsewhere
    ray.get(two.send.remote(1))
    until(lambda: hears(one, 1), "nobody is heard after a restart of the actor", LONG)
    ray.kill(relay())
    first = ray.get(one.send.remote(2))
    until(lambda: hears(two, 5), "nobody is heard after the end of the actor", LONG)
    with Fleet(URLS, "least_connections", replicas="ray") as here:
        until(lambda: others(here) == 6, "the driver has not heard of both", LONG)
        ray.get(two.close.remote())
        until(lambda: others(here) == 5, "who said good-bye still counts", LONG)
        os.kill(first, signal.SIGKILL)
        until(lambda: others(here) == 0, "who was killed still counts", LONG)


class Engine:
    """Works on a request until there is a file of that name."""

    async def __call__(self, prompt: str, path: str) -> str:
        while not os.path.exists(path):
            await asyncio.sleep(0.05)
        return prompt


class Front:
    """A deployment that calls the engines by a handle of its own."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def __call__(self, prompt: str, path: str) -> str:
        return str(await self._engine.remote(prompt, path))

    async def seen(self) -> tuple[int, int]:
        return seen(self._engine)


def seen(handle: Any) -> tuple[int, int]:
    """Requests of other routers, and of all, as the router of this process has them."""
    # Its property would make a router here, in a thread without Serve's loop.
    router = handle._router._asyncio_router._request_router
    if router is None:
        return 0, 0
    return others(router._fleet), total(router._fleet)


def test_handles_of_several_processes_count_the_same_requests(tmp_path: Path) -> None:
    config = RequestRouterConfig(
        request_router_class=CLASS,
        request_router_kwargs={"strategy": "least_connections", "replicas": "ray"},
    )
    small = {"num_cpus": 0.05}
    engine = serve.deployment(
        Engine,
        num_replicas=2,
        max_ongoing_requests=16,
        health_check_timeout_s=120,
        ray_actor_options=small,
        request_router_config=config,
    )
    front = serve.deployment(Front, health_check_timeout_s=120, ray_actor_options=small)
    fronts = serve.run(front.bind(engine.bind()), name="shared", route_prefix=None)
    engines = serve.get_deployment_handle("Engine", "shared")
    done = tmp_path / "done"
    calls = [engines.remote("here", str(done)) for _ in range(3)]
    calls += [fronts.remote("there", str(done)) for _ in range(2)]

    def there() -> tuple[int, int]:
        answer: tuple[int, int] = fronts.seen.remote().result()
        return answer

    until(lambda: seen(engines) == (2, 5), "this process does not know of the other's", LONG)
    until(lambda: there() == (3, 5), "the other process does not know of ours", LONG)
    done.touch()
    assert [call.result() for call in calls] == ["here"] * 3 + ["there"] * 2
    until(lambda: seen(engines) == (0, 0), "requests are left here", LONG)
    until(lambda: there() == (0, 0), "requests are left there", LONG)
