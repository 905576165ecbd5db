"""What the picker answers itself, and the subsets that gateways ask for."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from world import CHAT, World, chat, ext_proc, filters, needs_envoy, run, until, world

pytestmark = needs_envoy
METADATA = "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config"


def hinting(bootstrap: dict[str, Any], hint: Any) -> None:
    """Put a filter before the picker's that sets the subset."""
    entry = {
        "metadata_namespace": "envoy.lb.subset_hint",
        "value": {"x-gateway-destination-endpoint-subset": hint},
    }
    made = {"@type": METADATA, "metadata": [entry]}
    filters(bootstrap).insert(0, {"name": "hint", "typed_config": made})


async def refused(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    """The status, and the word for it in the body and in the header."""
    error = json.loads(await answer.text())["error"]
    assert error["code"] == answer.status
    assert answer.headers["x-llm-d-request-dropped-reason"] == error["type"]
    assert answer.headers["content-type"] == "application/json"
    return answer.status, error["type"]


@pytest.mark.parametrize("buffered", [False, True], ids=["streamed", "buffered"])
def test_no_endpoint_is_503(buffered: bool) -> None:
    async def test() -> None:
        async with world(1, buffered=buffered) as w:
            w.picker.pool.update({})
            for body in (json.dumps(chat("x" * 200_000)).encode(), b"{}", b""):
                assert await refused(await w.post(body)) == (503, "no_endpoint")
            answer = await w.client.get(w.url + "/v1/models")
            assert await refused(answer) == (503, "no_endpoint")
            await w.idle()
            assert not w.engines[0].seen

    run(test())


def test_a_body_beyond_the_bound_is_413() -> None:
    async def test() -> None:
        async with world(1, max_body_bytes=100_000) as w:
            assert (await w.post(b"x" * 100_000)).status == 200
            assert await refused(await w.post(b"x" * 300_000)) == (413, "body_too_large")
            await w.idle()
            assert len(w.engines[0].seen) == 1

    run(test())


def big(number: int) -> dict[str, Any]:
    """A request of which the cache of a small engine holds one at a time."""
    return chat(f"word{number} " * 1_000, max_tokens=200)


def test_a_hold_that_is_full_is_429() -> None:
    """One request fits into the cache of the engine; one may wait; the third may not."""

    async def test() -> None:
        hold = {"hold": True, "hold_limits": {"max_requests": 1}}
        params = {"seed": 1, "kv_tokens": 2_000}
        async with world(1, strategy="expected_latency", params=params, **hold) as w:
            sent = [asyncio.create_task(w.post(big(n), engine="hang")) for n in range(2)]
            await until(lambda: w.picker.router.hold.counts.waiting == 1)
            third = await w.post(big(9))
            assert await refused(third) == (429, "hold_requests")
            assert int(third.headers["retry-after"]) > 0
            w.engines[0].let_go.set()
            assert [answer.status for answer in await asyncio.gather(*sent)] == [200, 200]
            await w.idle()
            assert w.picker.router.hold.counts.waiting == 0

    run(test())


def test_a_client_that_leaves_the_hold_frees_its_place() -> None:
    async def test() -> None:
        params = {"seed": 1, "kv_tokens": 2_000}
        async with world(1, strategy="expected_latency", params=params, hold=True) as w:
            sent = [asyncio.create_task(w.post(big(n), engine="hang")) for n in range(2)]
            await until(lambda: w.picker.router.hold.counts.waiting == 1)
            for task in sent:
                task.cancel()
            await w.idle()
            assert w.picker.router.hold.counts.waiting == 0
            w.engines[0].let_go.set()
            assert (await w.post(big(9))).status == 200

    run(test())


def test_a_subset_is_obeyed() -> None:
    async def test() -> None:
        allowed: list[str] = []

        def edit(bootstrap: dict[str, Any]) -> None:
            hinting(bootstrap, allowed)

        async with world(3, start=False) as w:
            allowed += [w.engines[1].address, "10.9.9.9:1"]
            await again(w, edit)
            for _ in range(6):
                answer = await w.post()
                assert w.engine(json.loads(await answer.text())) is w.engines[1]
            await w.idle()

    run(test())


@pytest.mark.parametrize("hint", [[], ["10.9.9.9:8000"], ""], ids=["empty", "disjoint", "text"])
def test_a_subset_without_an_endpoint_is_503(hint: Any) -> None:
    async def test() -> None:
        async with world(2, edit=lambda bootstrap: hinting(bootstrap, hint)) as w:
            assert await refused(await w.post()) == (503, "no_endpoint")
            await w.idle()

    run(test())


def test_without_metadata_namespaces_the_header_decides() -> None:
    """The subset does not come through then, and nothing comes back."""

    async def test() -> None:
        def edit(bootstrap: dict[str, Any]) -> None:
            del ext_proc(bootstrap)["metadata_options"]
            hinting(bootstrap, ["10.9.9.9:8000"])

        async with world(2, edit=edit, strategy="round_robin") as w:
            for _ in range(4):
                assert (await w.post()).status == 200
            await w.idle()
            assert [len(engine.seen) for engine in w.engines] == [2, 2]

    run(test())


def test_without_attributes_a_dead_endpoint_counts_as_busy() -> None:
    async def test() -> None:
        def edit(bootstrap: dict[str, Any]) -> None:
            del ext_proc(bootstrap)["response_attributes"]

        async with world(1, edit=edit, fallbacks=0) as w:
            await w.engines[0].stop()
            for _ in range(5):
                assert (await w.post()).status == 503
            await until(lambda: w.picker.monitor.standing(w.engines[0].url) is not None)
            await w.idle()

    run(test())


def test_in_shadow_mode_the_gateway_chooses(tmp_path: Any) -> None:
    async def test() -> None:
        file = tmp_path / "shadow.jsonl"
        async with world(3, mode="shadow", shadow_file=str(file)) as w:
            for _ in range(6):
                assert (await w.post()).status == 200
            await w.idle()
            w.picker.fleet.shadow.close()
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            assert len(rows) == 6
            assert all(row["took_ms"] > 0 for row in rows)
            assert {row["host"] for row in rows} == {engine.url for engine in w.engines}
            assert all(row["ours"] in {engine.url for engine in w.engines} for row in rows)
            headers = [seen for engine in w.engines for seen in engine.headers]
            assert not any("x-gateway-destination-endpoint" in seen for seen in headers)

    run(test())


async def again(w: World, edit: Any) -> None:
    """Start an Envoy that could not be configured before the engines had their ports."""
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.settings import load
    from world import Envoy

    endpoints = ",".join(engine.address for engine in w.engines)
    settings = load({"endpoints": endpoints, "listen": f"127.0.0.1:{w.server.port}"}, {})
    config = bootstrap(settings, port=0, address="127.0.0.1", admin=0)
    edit(config)
    envoy = Envoy(config)
    w.on_end(envoy.stop)
    await envoy.start(w.client)
    w.envoys.append(envoy)


def test_a_path_is_kept() -> None:
    async def test() -> None:
        async with world(1) as w:
            answer = await w.client.post(w.url + CHAT + "?a=b", data=b"{}")
            assert answer.status == 200
            assert w.engines[0].seen[-1][:2] == ("POST", CHAT)

    run(test())
