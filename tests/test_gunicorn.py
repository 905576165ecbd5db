"""A real `gunicorn --preload` with four workers, before four of the demo's engines."""

import asyncio
import os
import re
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from routecore.demo.engine import Engine
from routecore.demo.runner import serve

pytest.importorskip("gunicorn")
WORKERS = 4


async def answers(engines: list[str]) -> list[dict[str, Any]]:
    """Answers of all workers, three of each or more."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS)),
        *("--timeout", "120"),
        *("--bind", "127.0.0.1:0", "preloaded:app"),
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent,
        env={**os.environ, "ENGINES": ",".join(engines)},
    )
    assert server.stderr is not None
    said = ""
    try:
        while not (at := re.search(r"Listening at: (http://\S+)", said)):
            line = await asyncio.wait_for(server.stderr.readline(), 60)
            assert line, said
            said += line.decode()
        rest = asyncio.create_task(server.stderr.read())
        found: list[dict[str, Any]] = []

        async def ask() -> None:
            # A connection a request, so that any worker may take it.
            async with aiohttp.ClientSession() as session, session.get(at[1]) as answer:
                assert answer.status == 200, await answer.text()
                found.append(await answer.json(content_type=None))

        async with asyncio.timeout(300):  # on a busy machine some workers hardly get a turn
            while True:
                await asyncio.gather(*(ask() for _ in range(2 * WORKERS)))
                of = [sum(a["worker"] == w for a in found) for w in {a["worker"] for a in found}]
                seen = len(of) == WORKERS and min(of) >= 3
                if seen and any(answer["fresh"] for answer in found):
                    break
        server.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.wait(), 60) == 0
        assert b"Traceback" not in (errors := await rest), errors
        return found
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


def test_workers_draw_otherwise_count_their_own_and_scrape() -> None:
    async def inside() -> list[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            engines = [
                await stack.enter_async_context(serve(Engine(speed=50).app)) for _ in range(4)
            ]
            return await answers(engines)

    found = asyncio.run(inside())
    workers = {answer["worker"]: answer for answer in found}
    assert len(workers) == WORKERS
    assert len({tuple(answer["drawn"]) for answer in workers.values()}) == WORKERS
    # The master's one request is nobody else's, and each ended its own before the next.
    assert all((answer["in_flight"], answer["left"]) == (0, 0) for answer in found)
    assert all(answer["scrapes"] and answer["status"] == 200 for answer in found)
    assert any(answer["fresh"] for answer in found)
    assert len({answer["url"] for answer in found}) == 4
