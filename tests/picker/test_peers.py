"""Pickers that hear each other route as one: replicas by an address."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq")

from world import CHAT, Engine, World, chat, needs_envoy, run, until, world

pytestmark = needs_envoy


async def hang(w: World, url: str, count: int) -> tuple[list[asyncio.Task[Any]], list[Engine]]:
    """Requests whose answers do not come, one after the other, and the engines that have them."""
    tasks = []
    for number in range(count):
        posting = w.client.post(url + CHAT, json=chat("hi"), headers={"x-engine": "hang"})
        tasks.append(asyncio.create_task(posting))
        await until(lambda number=number: sum(len(e.seen) for e in w.engines) > number)
    return tasks, [engine for engine in w.engines if engine.seen]


async def avoid(w: World, url: str, busy: list[Engine], times: int = 30) -> None:
    """Until so many requests in a row went to engines that are idle."""
    assert 0 < len(busy) < len(w.engines)
    async with asyncio.timeout(20):
        row = 0
        while row < times:
            before = [len(engine.seen) for engine in busy]
            async with w.client.post(url + CHAT, json=chat("hi")) as answer:
                assert answer.status == 200
            row = row + 1 if [len(engine.seen) for engine in busy] == before else 0


def test_replicas_know_of_each_other_s_load(tmp_path: Path) -> None:
    async def test() -> None:
        shared = {"strategy": "least_connections", "replicas": f"zmq+ipc://{tmp_path}/peers"}
        async with world(6, **shared) as one:
            endpoints = ",".join(engine.address for engine in one.engines)
            async with world(0, endpoints=endpoints, **shared) as two:
                await until(lambda: len(two.picker.fleet.replicas.peers) == 1)
                tasks, busy = await hang(one, one.url, 3)
                await avoid(one, two.url, busy)
                await two.idle()  # its own load is none
                for engine in one.engines:
                    engine.let_go.set()
                for task in tasks:
                    assert (await task).status == 200
                await one.idle()
            await until(lambda: not one.picker.fleet.replicas.peers)  # the other one said so

    run(test())


def test_a_picker_that_comes_back_knows_the_load_of_its_peers(tmp_path: Path) -> None:
    async def test() -> None:
        shared = {"strategy": "least_connections", "replicas": f"zmq+ipc://{tmp_path}/peers"}
        async with world(6, **shared) as one:
            tasks, busy = await hang(one, one.url, 3)
            endpoints = ",".join(engine.address for engine in one.engines)
            for _ in range(2):
                async with world(0, endpoints=endpoints, **shared) as two:
                    await avoid(one, two.url, busy)
            for engine in one.engines:
                engine.let_go.set()
            assert [(await task).status for task in tasks] == [200] * 3
            await one.idle()

    run(test())
