"""Ray Serve: time added per routed request beside Serve's own routers, and hits by processes.

`make bench-hosts` runs it. The times are of the hooks that Serve calls for one request, on the
routers of real deployments in a local Ray; the stock prefix router pays for its actor as it does
in use. The hits are of router objects of the real class over one simulated fleet: each stands
for a process, and requests come to them at random, as from a load balancer in front.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from types import SimpleNamespace
from typing import Any

import ray
from ray import serve
from ray.serve._private.common import (
    DeploymentHandleSource,
    DeploymentID,
    ReplicaID,
    RequestMetadata,
)
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest
from routecore import ROUTERS
from routecore.demo.engine import block_keys, prompt_text
from routecore.demo.scheduler import Scheduler
from routecore.demo.sequence import Sequence
from routecore.demo.traffic import conversations, text
from routecore.integrations.ray_serve import RoutecoreRequestRouter

OURS = "routecore.integrations.ray_serve.RoutecoreRequestRouter"
STOCK = (
    "ray.llm._internal.serve.routing_policies.prefix_aware.prefix_aware_router"
    ".PrefixCacheAffinityRouter"
)


class Idle:
    """A replica that is never called."""

    async def __call__(self, _request: Any = None) -> None:
        return None


def deploy(name: str, path: str, replicas: int, kwargs: dict[str, Any]) -> Any:
    config = RequestRouterConfig(request_router_class=path, request_router_kwargs=kwargs)
    made = serve.deployment(
        Idle,
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.01},
        request_router_config=config,
    )
    handle = serve.run(made.bind(), name=name, route_prefix=None)
    handle.remote(SimpleNamespace(prompt="warm")).result()
    return handle._router._asyncio_router


def pending(prompt: str, number: int) -> Any:
    metadata = RequestMetadata(request_id=f"r{number}", internal_request_id=f"r{number}")
    return PendingRequest(args=[SimpleNamespace(prompt=prompt)], kwargs={}, metadata=metadata)


async def cost_us(router: Any, prompts: list[str], rounds: int) -> list[float]:
    """Microseconds of every hook of one request, one request after the other."""
    taken = []
    for number in range(rounds):
        request = pending(prompts[number % len(prompts)], number)
        begin = time.perf_counter()
        ranks = await router.choose_replicas(router._replicas_list, request)
        replica_id = ranks[0][0].replica_id
        router.on_send_request(replica_id)
        router.on_new_queue_len_info(replica_id, 1)
        router.on_request_routed(request, replica_id, None)
        router.on_request_completed(replica_id, request.metadata.internal_request_id)
        router.decrement_queue_len_cache(replica_id)
        taken.append((time.perf_counter() - begin) * 1e6)
        await asyncio.sleep(0)
    return taken


def added(options: argparse.Namespace) -> None:
    prompts = {
        chars: [text("system", chars // 8) + text(f"p{i}", chars // 8) for i in range(64)]
        for chars in options.chars
    }
    rows = (
        ("power of two", "ray.serve._private.request_router.PowerOfTwoChoicesRequestRouter", {}),
        ("stock prefix-aware", STOCK, {}),
        *((f"routecore {word}", OURS, {"strategy": word}) for word in options.strategies),
    )
    found: dict[tuple[str, int], float] = {}
    for name, path, kwargs in rows:
        made = deploy(f"app{len(found)}", path, options.replicas, kwargs)
        for chars, texts in prompts.items():
            work = cost_us(made.request_router, texts, options.rounds)
            taken = asyncio.run_coroutine_threadsafe(work, made._event_loop).result()
            found[name, chars] = statistics.median(taken[len(texts) :])
    print(f"time of all hooks for one request, {options.replicas} replicas, median microseconds")
    power, stock = rows[0][0], rows[1][0]
    for chars in options.chars:
        for name, _, _ in rows:
            more = found[name, chars] - found[power, chars]
            beside = (found[stock, chars] - found[power, chars]) / more if more > 0 else 0.0
            print(
                f"  {chars:6} chars  {name:28} {found[name, chars]:8.1f}   added {more:8.1f}"
                + (
                    f"   {beside:4.0f} times less than stock"
                    if name.startswith("routecore")
                    else ""
                )
            )


@dataclass(order=True)
class Event:
    """Something at a simulated millisecond."""

    at: float
    order: int
    work: Any


class ReplicaState:
    """A replica in front of a simulated engine; what Serve's routers see of one."""

    max_ongoing_requests = 256
    multiplexed_model_ids: frozenset[str] = frozenset()
    node_id = availability_zone = None

    def __init__(self, number: int, kv_tokens: int) -> None:
        self.replica_id = ReplicaID(f"{number:08d}", DeploymentID("engines", "app"))
        self.engine = Scheduler(kv_tokens=kv_tokens)
        self.open: dict[Sequence, Any] = {}

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return len(self.open)


def router_over(replica_states: list[ReplicaState], kwargs: dict[str, Any]) -> Any:
    router = RoutecoreRequestRouter(
        deployment_id=DeploymentID("engines", "app"),
        handle_source=DeploymentHandleSource.UNKNOWN,
        use_replica_queue_len_cache=True,
    )
    router.initialize_state(**kwargs)
    router.update_replicas(replica_states)
    return router


async def hit_rate(processes: int, kwargs: dict[str, Any] | None, o: argparse.Namespace) -> str:
    """Cached share of prompt tokens, and mean latency, with so many router processes."""
    draw = random.Random(o.seed)
    replica_states = [ReplicaState(i, o.kv_tokens) for i in range(o.replicas)]
    routers = [router_over(replica_states, kwargs or {}) for _ in range(processes)]
    await asyncio.sleep(0)
    numbers, events, latency = count(), [], []

    async def send(job: Any, turn: int, now: float) -> None:
        body = job.bodies[turn]
        prompt = prompt_text(body)
        request = pending(prompt, next(numbers))
        request.args = [body]
        router = draw.choice(routers)
        if kwargs is None:
            ranks = [draw.sample(replica_states, 2)]
        else:
            ranks = await router.choose_replicas(replica_states, request)
        state = await router._select_from_candidate_replicas(ranks[0], 0)
        router.on_send_request(state.replica_id)
        sequence = Sequence(
            prompt=max(1, len(prompt) // 4), keys=block_keys(prompt), output=body["max_tokens"]
        )
        state.open[sequence] = (router, request, job, turn, now)
        state.engine.add(sequence, now)
        router.on_new_queue_len_info(state.replica_id, len(state.open))
        router.on_request_routed(request, state.replica_id, None)

    for job in conversations(rate=o.rate, seconds=o.seconds, seed=o.seed):
        heappush(events, Event(job.start * 1e3, next(numbers), (job, 0)))
    now = 0.0
    while events or any(state.open for state in replica_states):
        now += 5.0
        for state in replica_states:
            state.engine.advance(now)
            for sequence in [s for s in state.open if s.emitted >= s.output]:
                router, request, job, turn, begun = state.open.pop(sequence)
                router.on_request_completed(state.replica_id, request.metadata.internal_request_id)
                router.decrement_queue_len_cache(state.replica_id)
                latency.append(now - begun)
                if turn + 1 < len(job.bodies):
                    heappush(events, Event(now + job.delay * 1e3, next(numbers), (job, turn + 1)))
        while events and events[0].at <= now:
            await send(*heappop(events).work, now)
    hits = sum(state.engine.hits for state in replica_states)
    asked = sum(state.engine.queries for state in replica_states)
    loads = [state.engine.queries for state in replica_states]
    left = sum(router._fleet.monitor.in_flight for router in routers)
    return (
        f"hit rate {hits / asked:.3f}, mean latency {statistics.mean(latency):.0f} ms, "
        f"busiest/mean {max(loads) * len(loads) / sum(loads):.2f}, "
        f"{len(latency)} requests, {left} left in flight"
    )


def hits(options: argparse.Namespace) -> None:
    print(
        f"simulated fleet of {options.replicas}, {options.rate:g} requests/s, seed {options.seed}"
    )
    print(f"  power of two                 {asyncio.run(hit_rate(1, None, options))}")
    for strategy in options.strategies:
        for processes in (1, 2, 4):
            given = {"strategy": strategy, "seed": 1}
            found = asyncio.run(hit_rate(processes, given, options))
            print(f"  {strategy:18} {processes} process{'es' if processes > 1 else '  '} {found}")


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    known = [word for word in ("prefix_affinity", "prefix_cache") if word in ROUTERS]
    read.add_argument("--strategies", nargs="+", default=known)
    read.add_argument("--chars", type=int, nargs="+", default=[1024, 8192, 32768])
    read.add_argument("--replicas", type=int, default=8)
    read.add_argument("--rounds", type=int, default=400)
    read.add_argument("--rate", type=float, default=24.0)
    read.add_argument("--seconds", type=float, default=120.0)
    read.add_argument("--kv-tokens", type=int, default=65_536)
    read.add_argument("--seed", type=int, default=0)
    options = read.parse_args()
    path = os.pathsep.join(["python", "benches/hosts"])
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    added(options)
    serve.shutdown()
    hits(options)
    ray.shutdown()


if __name__ == "__main__":
    main()
