"""LiteLLM: our hook's own time beside the host's whole decision. `make bench-hosts` runs it.

The decision is `Router.async_get_available_deployment` without our callback; the hook is timed
alone, on the same deployments. "With ours" is the whole decision with the callback in it, which
may take less: behind our filter one deployment is left for LiteLLM's own steps.
"""

import argparse
import asyncio
import copy
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from routecore.demo.traffic import text
from routecore.integrations.litellm import RoutecoreCallback
from routecore.integrations.shared.defaults import LITELLM


async def median_us(
    work: Callable[[], Awaitable[Any]], rounds: int, before: Callable[[], None] = lambda: None
) -> float:
    taken = []
    for _ in range(rounds + rounds // 10):
        before()
        begin = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(taken[rounds // 10 :])


async def compare(n: int, host: str, options: argparse.Namespace) -> None:
    deployments = [
        {
            "model_name": "m",
            "litellm_params": {
                "model": "openai/demo",
                "api_base": f"http://127.0.0.1:{9000 + i}/v1",
                "api_key": "x",
            },
        }
        for i in range(n)
    ]
    router = litellm.Router(model_list=deployments, routing_strategy=host)
    messages = [{"role": "user", "content": text("prompt", options.chars // 4)}]

    async def decide() -> None:
        await router.async_get_available_deployment(
            model="m", messages=messages, request_kwargs={"metadata": {"model_group": "m"}}
        )

    before = await median_us(decide, options.rounds)
    callback = RoutecoreCallback(strategy=options.strategy)
    litellm.callbacks.append(callback)
    with_ours = await median_us(decide, options.rounds)
    found = router.get_model_list()

    def fresh() -> None:
        nonlocal found
        found = copy.deepcopy(found)  # as LiteLLM makes them for each request since 1.109

    async def hook() -> None:
        await callback.async_filter_deployments(
            model="m",
            healthy_deployments=found,
            messages=messages,
            request_kwargs={"metadata": {"model_group": "m"}},
        )

    ours = await median_us(hook, 5 * options.rounds)
    gc.disable()  # else what the copies leave behind is collected in our hook
    anew = await median_us(hook, options.rounds, fresh)
    gc.enable()
    litellm.callbacks.remove(callback)
    print(
        f"  {n:4} deployments  {host:15} {before:7.0f}   with ours {with_ours:7.0f}   "
        f"our hook {ours:6.1f} = {ours / before:.1%}, of fresh dicts {anew:6.1f}"
    )


async def run(options: argparse.Namespace) -> None:
    print(f"one decision, {options.chars} characters, {options.strategy}, median microseconds")
    for n in options.deployments:
        for host in ("simple-shuffle", "least-busy"):
            await compare(n, host, options)


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--strategy", default=LITELLM)
    read.add_argument("--deployments", type=int, nargs="+", default=[2, 16, 128])
    read.add_argument("--chars", type=int, default=2048)
    read.add_argument("--rounds", type=int, default=400)
    asyncio.run(run(read.parse_args()))


if __name__ == "__main__":
    main()
