"""Endpoints of a cluster, through whatever happens to its lists and watches."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio")
pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from cluster import Cluster, cluster, pod, pool
from routecore.integrations.envoy.endpoints.kubernetes import watch
from routecore.integrations.envoy.endpoints.pool import Pool
from routecore.integrations.envoy.endpoints.source import parse
from world import CHAT, Engine, chat, needs_envoy, run, until, world


class Seen:
    """A pool that follows a source."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.pool = Pool(self.gone.append)

    @property
    def ready(self) -> set[str]:
        return {endpoint.url.partition("//")[2] for endpoint in self.pool.ready}

    async def are(self, *addresses: str) -> None:
        await until(lambda: self.pool.synced and self.ready == set(addresses))


@contextlib.asynccontextmanager
async def following(source: str) -> AsyncIterator[Seen]:
    made = Seen()
    task = asyncio.create_task(watch(parse(source), made.pool.update))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def a_pool(folder: Path, monkeypatch: Any) -> AsyncIterator[tuple[Cluster, Seen]]:
    """An InferencePool with two pods, followed."""
    async with cluster(folder, monkeypatch) as k8s:
        k8s.put("inferencepools", "llama", pool(8000))
        k8s.put("pods", "one", pod("10.0.0.1"))
        k8s.put("pods", "two", pod("10.0.0.2"))
        async with following("pool:prod/llama") as seen:
            await seen.are("10.0.0.1:8000", "10.0.0.2:8000")
            yield k8s, seen


def test_pods_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with a_pool(tmp_path, monkeypatch) as (k8s, seen):
            one, two = "10.0.0.1:8000", "10.0.0.2:8000"
            k8s.put("pods", "three", pod("10.0.0.3", ready=False))
            k8s.put("pods", "other", pod("10.0.0.4", app="else"))
            await until(lambda: len(seen.pool) == 3)
            assert seen.ready == {one, two}
            k8s.put("pods", "three", pod("10.0.0.3"))
            await seen.are(one, two, "10.0.0.3:8000")
            k8s.put("pods", "one", pod("10.0.0.1", ready=False))  # keeps what is known of it
            await seen.are(two, "10.0.0.3:8000")
            k8s.put("pods", "one", pod("10.0.0.1"))
            await seen.are(one, two, "10.0.0.3:8000")
            assert seen.gone == []
            k8s.put("pods", "two", pod("10.0.0.2", going=True))
            await seen.are(one, "10.0.0.3:8000")
            k8s.delete("pods", "two")
            await until(lambda: seen.gone == [f"http://{two}"])
            k8s.put("pods", "three", pod("10.0.0.3", app="else"))  # no longer selected
            await seen.are(one)
            assert seen.gone[-1] == "http://10.0.0.3:8000"

    run(test())


def test_a_watch_that_breaks_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with a_pool(tmp_path, monkeypatch) as (k8s, seen):
            lists = k8s.counts["lists"]
            for n in range(3, 8):
                k8s.cut()
                k8s.put("pods", f"pod-{n}", pod(f"10.0.0.{n}"))
                await seen.are(*(f"10.0.0.{at}:8000" for at in range(1, n + 1)))
            assert k8s.counts["lists"] == lists

    run(test())


@pytest.mark.parametrize("by_event", [True, False], ids=["event", "status"])
def test_a_history_that_is_gone_is_listed_anew(
    by_event: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with a_pool(tmp_path, monkeypatch) as (k8s, seen):
            k8s.gone_by_event = by_event
            lists = k8s.counts["lists"]
            k8s.is_down = True  # nobody hears what happens now
            k8s.cut()
            await until(lambda: not k8s.watches)
            k8s.delete("pods", "one")
            k8s.put("pods", "three", pod("10.0.0.3"))
            k8s.forget()
            k8s.is_down = False
            await seen.are("10.0.0.2:8000", "10.0.0.3:8000")
            assert seen.gone == ["http://10.0.0.1:8000"]
            assert k8s.counts["lists"] > lists

    run(test())


def test_a_bookmark_keeps_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with a_pool(tmp_path, monkeypatch) as (k8s, seen):
            lists = k8s.counts["lists"]
            await until(lambda: len(k8s.watches) == 2)
            k8s.bookmark()
            k8s.put("pods", "three", pod("10.0.0.3"))
            await seen.are("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
            k8s.bookmark()
            await asyncio.sleep(0.1)  # until it is heard
            k8s.forget()  # no longer known is what came before the bookmark
            k8s.cut()
            k8s.put("pods", "four", pod("10.0.0.4"))
            await until(lambda: len(seen.ready) == 4)
            assert k8s.counts["lists"] == lists
            kinds = [query for kind, query in k8s.asked if kind == "pods"]
            assert kinds[-1]["resourceVersion"] == str(k8s.version - 1)

    run(test())


def test_long_lists_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with cluster(tmp_path, monkeypatch) as k8s:
            k8s.page = 3
            for n in range(1, 21):
                k8s.put("pods", f"pod-{n}", pod(f"10.0.0.{n}"))
            async with following("pods:prod/app=vllm:8000") as seen:
                await seen.are(*(f"10.0.0.{n}:8000" for n in range(1, 21)))
            assert k8s.counts["lists"] == 7

    run(test())


def test_a_pool_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with a_pool(tmp_path, monkeypatch) as (k8s, seen):
            k8s.put("inferencepools", "llama", pool(8000, 8001))
            await seen.are(*(f"10.0.0.{n}:800{m}" for n in (1, 2) for m in (0, 1)))
            k8s.put("pods", "new", pod("10.0.0.9", app="sglang"))
            k8s.put("inferencepools", "llama", pool(9000, app="sglang"))
            await seen.are("10.0.0.9:9000")
            k8s.delete("inferencepools", "llama")
            await seen.are()
            k8s.put("inferencepools", "llama", pool(8000))
            await seen.are("10.0.0.1:8000", "10.0.0.2:8000")

    run(test())


def test_a_server_that_refuses_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with cluster(tmp_path, monkeypatch) as k8s:
            k8s.statuses = [403, 500, 429]
            k8s.put("pods", "one", pod("10.0.0.1"))
            async with following("pods:prod/app=vllm:8000") as seen:
                await seen.are("10.0.0.1:8000")
            assert "403" in caplog.text

    run(test())


def test_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(*endpoints: tuple[str, bool | None], of: str = "engines") -> dict[str, Any]:
        return {
            "metadata": {"labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4",
            "ports": [{"name": "metrics", "port": 9100}, {"name": "http", "port": 8000}],
            "endpoints": [
                {"addresses": [ip], "conditions": {} if ready is None else {"ready": ready}}
                for ip, ready in endpoints
            ],
        }

    async def test() -> None:
        async with cluster(tmp_path, monkeypatch) as k8s:
            k8s.put("endpointslices", "a", part(("10.0.0.1", True), ("10.0.0.2", False)))
            k8s.put("endpointslices", "b", part(("10.0.0.2", None), ("10.0.0.3", None)))
            k8s.put("endpointslices", "c", part(("10.0.0.7", True), of="other"))
            async with following("service:prod/engines:http") as seen:
                await seen.are("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
                k8s.delete("endpointslices", "b")
                await seen.are("10.0.0.1:8000")
                assert seen.gone == ["http://10.0.0.3:8000"]  # the other one is not ready
                k8s.put("endpointslices", "a", {**part(), "endpoints": None})
                await seen.are()

    run(test())


def test_a_pod_that_leaves_takes_its_counts_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with cluster(tmp_path, monkeypatch) as k8s:
            k8s.put("pods", "one", pod("10.0.0.1"))
            source = "pods:prod/app=vllm:8000"
            async with world(0, endpoints=source, start=False) as w:
                await until(lambda: len(w.picker.pool.ready) == 1)
                body = memoryview(json.dumps(chat("a document " * 300)).encode())
                await w.picker.pick("a", None, None, body)
                assert w.in_flight == 1
                k8s.delete("pods", "one")
                await until(lambda: len(w.picker.pool) == 0)
                assert w.in_flight == 0
                assert not any(w.picker.fleet.table.urls)
                k8s.put("pods", "again", pod("10.0.0.1"))  # another pod, its address
                await until(lambda: len(w.picker.pool.ready) == 1)
                w.picker.monitor.on_request_complete("http://10.0.0.1:8000", "a", 1.0, 200)
                assert w.in_flight == 0

    run(test())


@needs_envoy
def test_pods_come_and_go_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is served by a pod that was ready, and nothing stays in flight."""

    def any_address(bootstrap: dict[str, Any]) -> None:
        engines = bootstrap["static_resources"]["clusters"][0]
        for name in ("load_balancing_policy", "load_assignment"):
            engines.pop(name)
        header = {"use_http_header": True, "http_header_name": "x-gateway-destination-endpoint"}
        engines |= {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
                    "original_dst_lb_config": header}  # fmt: skip

    async def test() -> None:
        chance = random.Random(3)
        async with cluster(tmp_path, monkeypatch) as k8s, contextlib.AsyncExitStack() as stack:
            engines: list[Engine] = []
            for n in range(2, 6):
                engine = Engine(f"127.0.0.{n}", engines[0].port if engines else 0)
                await engine.start()
                stack.push_async_callback(engine.stop)
                engines.append(engine)
            port = engines[0].port
            source = f"pods:prod/app=vllm:{port}"
            async with world(
                0, endpoints=source, fallbacks=0, edit=any_address, fixed="127.0.0.1:1"
            ) as w:
                names = [engine.host for engine in engines]
                up = set(names[:2])
                for name in up:
                    k8s.put("pods", name, pod(name))
                await until(lambda: len(w.picker.pool.ready) == 2)
                statuses: list[int] = []

                async def client() -> None:
                    for _ in range(25):
                        answer = await w.client.post(w.url + CHAT, json=chat("hi"))
                        statuses.append(answer.status)
                        await answer.read()

                clients = [asyncio.create_task(client()) for _ in range(8)]
                while not all(task.done() for task in clients):
                    name = chance.choice(names)
                    if name in up and len(up) > 1:
                        up.discard(name)
                        k8s.delete("pods", name)
                    elif name not in up:
                        up.add(name)
                        k8s.put("pods", name, pod(name))
                    if chance.random() < 0.3:
                        k8s.cut()
                    await asyncio.sleep(0.01)
                await asyncio.gather(*clients)
                assert statuses == [200] * 200
                await w.idle()

    run(test())
