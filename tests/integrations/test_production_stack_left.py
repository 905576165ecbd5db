"""Clients that leave while their request waits for room in production-stack."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from production_stack_host import run


@pytest.fixture
def unless_left(stand_in: Any) -> Callable[..., Any]:
    from routecore.integrations.production_stack import left

    return left.unless_left


class Client:
    """What a server says of a client: these messages, and nothing more until it leaves."""

    def __init__(self, *messages: str) -> None:
        self._messages = list(messages)
        self.leaves = asyncio.Event()
        self.asked = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.asked.set()
        if self._messages:
            return {"type": self._messages.pop(0)}
        await self.leaves.wait()
        return {"type": "http.disconnect"}


def test_who_leaves_is_waited_for_no_longer(unless_left: Any) -> None:
    async def scenario() -> None:
        client, was_cancelled = Client("http.request"), False

        async def waits() -> None:
            nonlocal was_cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled = True
                raise

        async def request() -> str:
            try:
                await unless_left(client, waits())
            except Exception as error:
                task = asyncio.current_task()
                assert task is not None and task.cancelling() == 0
                await asyncio.sleep(0)  # the task itself is not cancelled
                return type(error).__name__
            return "served"

        asked = asyncio.create_task(request())
        await client.asked.wait()
        client.leaves.set()
        assert await asyncio.wait_for(asked, 30) == "Left" and was_cancelled

    run(scenario())


def test_who_stays_gets_what_was_waited_for_and_nothing_is_left_behind(unless_left: Any) -> None:
    async def broken() -> Any:
        raise RuntimeError("Unexpected message received")

    async def endless() -> Any:
        return {"type": "http.request"}

    async def scenario() -> None:
        async def soon() -> str:
            for _ in range(20):
                await asyncio.sleep(0)
            return "url"

        async def fails() -> str:
            raise ValueError("no endpoints")

        for request in (Client(), SimpleNamespace(), *map(asking, (broken, endless))):
            assert await asyncio.wait_for(unless_left(request, soon()), 30) == "url"
            with pytest.raises(ValueError, match="no endpoints"):
                await unless_left(request, fails())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def asking(receive: Callable[[], Any]) -> Any:
    return SimpleNamespace(receive=receive)


def test_an_end_from_elsewhere_is_an_end(unless_left: Any) -> None:
    async def scenario() -> None:
        client = Client()
        asked = asyncio.create_task(unless_left(client, asyncio.Event().wait()))
        await client.asked.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(scenario())
