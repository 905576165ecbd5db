"""A pick that takes its time: one mode waits, the other gives up, and neither leaves a trace."""

import asyncio
from typing import Any

import pytest
from world import ext_proc, needs_envoy, run, world

pytestmark = needs_envoy


@pytest.mark.parametrize(("buffered", "status"), [(False, 200), (True, 504)])
def test_a_pick_beyond_the_message_timeout(
    buffered: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(bootstrap: dict[str, Any]) -> None:
        ext_proc(bootstrap)["message_timeout"] = "0.2s"
        ext_proc(bootstrap)["failure_mode_allow"] = False

    async def test() -> None:
        async with world(1, buffered=buffered, edit=impatient) as w:
            pick = w.picker.pick

            async def slowly(*given: Any) -> Any:
                await asyncio.sleep(0.6)
                return await pick(*given)

            monkeypatch.setattr(w.picker, "pick", slowly)
            assert (await w.post(b"{}")).status == status
            await w.idle()
            assert len(w.engines[0].seen) == (status == 200)

    run(test())


@pytest.mark.parametrize("buffered", [False, True])
def test_a_slow_pick_holds_nobody_else_up(buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with world(1, buffered=buffered) as w:
            pick, go = w.picker.pick, asyncio.Event()

            async def slowly(*given: Any) -> Any:
                if given[-1] == b"slow":
                    await go.wait()
                return await pick(*given)

            monkeypatch.setattr(w.picker, "pick", slowly)
            slow = asyncio.create_task(w.post(b"slow"))
            for _ in range(5):
                assert (await w.post(b"{}")).status == 200
            assert not slow.done()
            go.set()
            assert (await slow).status == 200
            await w.idle()

    run(test())
