"""What a picker shows of the requests that wait: `/held`, beside its metrics."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from ports import free_port
from test_refusals import big
from test_server import process, ready
from world import Envoy, World, needs_envoy, run, world

pytestmark = needs_envoy


class Pages:
    """A picker's process behind an Envoy, and the pages that it shows."""

    def __init__(self, w: World, made: asyncio.subprocess.Process, port: int) -> None:
        self.w, self.made, self._at = w, made, f"http://127.0.0.1:{port}"

    def ask(self, number: int) -> asyncio.Task[aiohttp.ClientResponse]:
        """A request of which the engine's cache holds one, and which is not answered yet."""
        return asyncio.create_task(self.w.post(big(number), engine="hang"))

    async def get(self, path: str) -> tuple[int, str]:
        async with self.w.client.get(self._at + path) as answer:
            return answer.status, await answer.text()

    async def held(self, count: int) -> list[dict[str, Any]]:
        """The rows, once so many wait."""
        async with asyncio.timeout(30):
            while True:
                status, text = await self.get("/held")
                page = json.loads(text)
                assert status == 200, page
                rows: list[dict[str, Any]] = page["held"]
                if page["waiting"] == count and len(rows) == min(count, 64):
                    return rows
                await asyncio.sleep(0.02)

    async def metric(self, name: str) -> float:
        _, text = await self.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def idle(self) -> None:
        async with asyncio.timeout(30):
            while await self.metric("routecore_in_flight_requests"):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def pages(**variables: str) -> AsyncIterator[Pages]:
    """One engine, whose cache has room for one request, behind a picker with these variables."""
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.settings import load

    async with world(1, start=False) as w:
        port, shown = free_port(), free_port()
        given = {"endpoints": w.engines[0].address, "listen": f"127.0.0.1:{port}"}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        config = bootstrap(load(given, {}), port=0, address="127.0.0.1", admin=0)
        envoy = Envoy(config)
        w.on_end(envoy.stop)
        env = {
            "ROUTECORE_STRATEGY": "expected_latency",
            "ROUTECORE_PARAMS": "seed=1,kv_tokens=2000",
            "ROUTECORE_SCRAPE_EVERY": "0",
            **variables,
        }
        async with process(*words, "--metrics-port", str(shown), **env) as made:
            await ready(made, port)
            await envoy.start(w.client)
            w.envoys.append(envoy)
            yield Pages(w, made, shown)


def test_who_waits_is_shown_and_nothing_is_left_of_who_leaves() -> None:
    async def test() -> None:
        bounds = {"ROUTECORE_HOLD": "true", "ROUTECORE_HOLD_LIMITS": "max_requests=3"}
        async with pages(**bounds) as p:
            assert await p.held(0) == []
            first = p.ask(0)
            async with asyncio.timeout(30):
                while not p.w.engines[0].seen:
                    await asyncio.sleep(0.005)
            waiting = []
            for number in range(3):
                waiting.append(p.ask(1 + number))
                rows = await p.held(number + 1)
            assert [row["ahead"] for row in rows] == [0, 1, 2]
            assert len({row["request_id"] for row in rows}) == 3
            for row in rows:
                waits = row["waits"]
                assert waits["url"] == p.w.engines[0].url and waits["waiting"] == 3
                assert waits["in_use_tokens"] + waits["added_tokens"] > waits["room_tokens"]
                assert row["waited_s"] >= 0 and row["fault"] is None
            status, text = await p.get("/held")
            assert status == 200 and "word" not in text, "nothing of a prompt is shown"
            assert await p.metric("routecore_waiting_requests") == 3
            refused = await p.ask(8)
            assert refused.status == 429 and int(refused.headers["retry-after"]) > 0
            waiting.pop(1).cancel()
            left = [row["request_id"] for row in await p.held(2)]
            assert left == [rows[0]["request_id"], rows[2]["request_id"]]
            p.w.engines[0].let_go.set()
            answers = await asyncio.gather(first, *waiting)
            assert [answer.status for answer in answers] == [200] * 3
            await p.idle()
            assert await p.held(0) == []
            assert await p.metric('routecore_rejected_requests_total{host="envoy",reason="req') == 1
            assert await p.metric("routecore_waited_seconds_count") == 3

    run(test())


def test_the_64_oldest_are_shown() -> None:
    async def test() -> None:
        async with pages(ROUTECORE_HOLD="true") as p:
            asked = [p.ask(number) for number in range(70)]
            rows = await p.held(69)
            assert [row["ahead"] for row in rows] == list(range(64))
            for task in asked:
                task.cancel()
            await p.idle()
            assert await p.held(0) == []

    run(test())


def test_a_picker_without_a_hold_says_so_and_metrics_are_where_they_were() -> None:
    async def test() -> None:
        async with pages() as p:
            status, text = await p.get("/held")
            assert status == 404 and "--hold" in json.loads(text)["error"]
            assert await p.metric("routecore_picker_endpoints") == 1
            async with p.w.client.post(f"{p._at}/held") as answer:
                assert answer.status == 405

    run(test())


def test_it_ends_while_somebody_looks() -> None:
    async def test() -> None:
        async with pages(ROUTECORE_HOLD="true") as p:
            looking = [asyncio.create_task(p.get("/held")) for _ in range(8)]
            p.made.send_signal(signal.SIGTERM)
            async with asyncio.timeout(40):
                await asyncio.gather(*looking, return_exceptions=True)
                assert await p.made.wait() == 0

    run(test())
