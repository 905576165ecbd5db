"""verl's rollout router on a real Ray: an actor, made and called as verl does it.

Where verl itself is installed, its own loader and client are used; elsewhere what they do is done
here.
"""

import asyncio
import importlib.util
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray_cluster

pytest.importorskip("ray", reason="Ray is not installed: make test-hosts")

import ray

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.verl,
    # Ray's own deprecations are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

CLASS = "routecore.integrations.verl.RoutecoreRouter"


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with ray_cluster.local_ray():
        yield


class Server:
    """A rollout server that remembers which prompts it was sent."""

    def __init__(self) -> None:
        self.heads: Counter[int] = Counter()
        self.weights = 0

    async def generate(self, prompt_ids: list[int], tokens: int) -> list[int]:
        self.heads[prompt_ids[0]] += 1
        await asyncio.sleep(0.002 * tokens)
        return [random.randrange(150_000) for _ in range(8 * tokens)]

    def seen(self) -> dict[int, int]:
        heads, self.heads = dict(self.heads), Counter()
        return heads


def started(servers: dict[str, Any], folder: Path, **file: Any) -> Any:
    """The router's actor, from a router file."""
    file = {"router_class": CLASS, **file}
    if importlib.util.find_spec("verl") is not None:
        path = folder / "router.yaml"
        path.write_bytes(msgspec.json.encode(file))  # JSON is YAML
        own: Any = importlib.import_module("verl.workers.rollout.router")
        return own.get_router_handle(servers=servers, router_config_path=str(path))
    module, _, name = file["router_class"].rpartition(".")
    return ray.remote(getattr(importlib.import_module(module), name)).remote(servers, file)


class Client:
    """What verl's LLMServerClient does with the router: asks once what to send, sends that."""

    def __init__(self, router: Any) -> None:
        self._router = router
        self._acquire: list[str] | None = None
        self._release: list[str] = []

    async def generate(self, request_id: str, **fields: Any) -> list[int]:
        if self._acquire is None:
            self._acquire, self._release = await asyncio.gather(
                self._router.require_acquire_fields.remote(),
                self._router.require_release_fields.remote(),
            )
        sent = {name: fields[name] for name in self._acquire if name in fields}
        server_id, server = await self._router.acquire_server.remote(request_id=request_id, **sent)
        try:
            return await server.generate.remote(fields["prompt_ids"], fields["tokens"])
        finally:
            known = {"request_id": request_id}
            sent = {name: known[name] for name in self._release}
            self._router.release_server.remote(server_id=server_id, **sent)


async def sample(client: Client, prompt: list[int], turns: int, tokens: int) -> None:
    """One sample: its prompt, then each answer and what a tool says to it."""
    request_id, ids = uuid.uuid4().hex, list(prompt)
    for turn in range(turns):
        ids += await client.generate(request_id, prompt_ids=ids, tokens=tokens, sampling_params={})
        ids += range(turn, turn + 20)
        await asyncio.sleep(0.005)


async def step(client: Client, number: int, groups: int = 6, of: int = 16) -> None:
    """Groups of samples, all at once: agents among them, one in twenty far longer than the rest."""
    samples = []
    for group in range(groups):
        prompt = [1000 * number + group, *(random.Random(group).choices(range(150_000), k=1200))]
        for _ in range(of):
            tokens = 60 if random.random() < 0.05 else 6
            samples.append(sample(client, prompt, 3 if group % 2 else 1, tokens))
    await asyncio.gather(*samples)


def quiet(router: Any) -> dict[str, Any]:
    """The status once what was released has arrived; one actor hears its calls in order."""
    return dict(ray.get(router.get_status.remote()))


@pytest.fixture(scope="module")
def servers() -> dict[str, Any]:
    made = ray.remote(num_cpus=0.1, max_concurrency=1000)(Server)
    return {f"10.0.0.{at}:8000": made.remote() for at in range(4)}


@pytest.mark.parametrize("strategy", ["expected_latency", "prefix_cache"])
def test_steps_of_groups_with_updates_between(
    servers: dict[str, Any], tmp_path: Path, strategy: str
) -> None:
    router = started(servers, tmp_path, strategy=strategy, seed=1)

    async def train() -> None:
        client = Client(router)
        for server in servers.values():
            await server.seen.remote()  # of tests before
        for number in range(3):
            await step(client, number)
            status = quiet(router)
            assert status["total_inflight"] == 0
            assert status["fallbacks"] == 0
            cleared = await router.clear_sticky_cache.remote()
            assert cleared["cleared_entries"] > 1000 // 16
            assert cleared["server_loads"] == dict.fromkeys(servers, 0)
            seen = [await server.seen.remote() for server in servers.values()]
            assert sum(sum(heads.values()) for heads in seen) == 3 * 16 * (1 + 3)
            assert all(seen)

    asyncio.run(train())


def test_a_conversation_stays_with_its_server(servers: dict[str, Any], tmp_path: Path) -> None:
    router = started(servers, tmp_path)

    async def talk() -> list[dict[int, int]]:
        client = Client(router)
        for head in range(4):
            await sample(client, [head, *range(head, head + 2000)], turns=5, tokens=10)
        return [await server.seen.remote() for server in servers.values()]

    for server in servers.values():
        ray.get(server.seen.remote())  # of tests before
    homes = Counter(head for heads in asyncio.run(talk()) for head in heads)
    assert homes == {head: 1 for head in range(4)}


def test_servers_come_and_go_in_the_middle_of_a_step(
    servers: dict[str, Any], tmp_path: Path
) -> None:
    names = list(servers)
    router = started({}, tmp_path)

    async def train() -> None:
        client = Client(router)
        with pytest.raises(RuntimeError, match="No available servers in load balancer"):
            await client.generate("early", prompt_ids=[1], tokens=1)
        await router.add_servers.remote({name: servers[name] for name in names[:2]})
        going = asyncio.create_task(step(client, 1))
        await asyncio.sleep(0.05)
        await router.add_servers.remote({name: servers[name] for name in names[2:]})
        await asyncio.sleep(0.05)
        await router.remove_servers.remote(names[:1])
        await going
        await step(client, 2)

    asyncio.run(train())
    status = quiet(router)
    assert status["servers"] == dict.fromkeys(names[1:], 0)
    assert ray.get(router.get_total_inflight.remote()) == 0
    assert sorted(ray.get(router.get_all_servers.remote())) == sorted(names[1:])


def test_a_generation_that_fails_leaves_nothing_in_flight(tmp_path: Path) -> None:
    server = ray.remote(num_cpus=0.1)(Server).remote()
    router = started({"s": server}, tmp_path)

    async def fail() -> None:
        client = Client(router)
        ray.kill(server)
        for number in range(4):
            with pytest.raises(ray.exceptions.RayActorError):
                await client.generate(str(number), prompt_ids=[number] * 100, tokens=1)

    asyncio.run(fail())
    assert quiet(router)["total_inflight"] == 0


def test_a_wrong_file_ends_the_start_with_its_line(tmp_path: Path) -> None:
    router = started({"s": None}, tmp_path, strategy="prefix_cach")
    with pytest.raises(ray.exceptions.RayActorError, match="unknown 'prefix_cach'; valid: "):
        ray.get(router.get_status.remote())
