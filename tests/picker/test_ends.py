"""Whatever becomes of a request, it leaves the load; and its endpoint is judged by it."""

import asyncio
import json
import random
from typing import Any

import aiohttp
import pytest
from world import CHAT, LONG, World, chat, ext_proc, needs_envoy, run, until, world

pytestmark = needs_envoy


def standing(w: World, at: int) -> Any:
    return w.picker.monitor.standing(w.engines[at].url)


async def open_one(w: World, engine: str) -> aiohttp.ClientResponse:
    """A request whose answer is not read yet."""
    return await w.client.post(w.url + CHAT, json=chat("hi"), headers={"x-engine": engine})


def test_a_stream_of_500_chunks_counts_until_its_end() -> None:
    async def test() -> None:
        async with world(1) as w:
            w.engines[0].pause = 0.0002
            answer = await open_one(w, "stream 500")
            assert (answer.status, w.in_flight) == (200, 1)
            text = await answer.text()
            assert text.count('"tok"') == 500
            assert text.endswith("[DONE]\n\n")
            await w.idle()

    run(test())


def test_a_client_that_leaves_before_the_headers() -> None:
    async def test() -> None:
        async with world(1) as w:
            sending = asyncio.create_task(open_one(w, "hang"))
            await until(lambda: len(w.engines[0].seen) == 1)
            assert w.in_flight == 1
            sending.cancel()
            await w.idle()
            assert standing(w, 0) is None
            w.engines[0].let_go.set()

    run(test())


def test_a_client_that_leaves_within_the_answer() -> None:
    async def test() -> None:
        async with world(1) as w:
            w.engines[0].pause = 0.001
            for _ in range(7):
                answer = await open_one(w, "stream 100000")
                await answer.content.readany()
                answer.close()
            await w.idle()
            assert standing(w, 0) is None

    run(test())


def test_a_client_that_leaves_within_its_body() -> None:
    async def test() -> None:
        async with world(1) as w:
            host, port = w.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nhalf")
            await until(lambda: w.server.counters.open == 1)
            writer.close()
            await w.idle()
            assert not w.engines[0].seen

    run(test())


def test_an_answer_that_breaks_off() -> None:
    async def test() -> None:
        async with world(1) as w:
            answer = await open_one(w, "break 3")
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
            await w.idle()

    run(test())


def test_errors_of_an_endpoint_put_it_out() -> None:
    async def test() -> None:
        async with world(1) as w:
            for _ in range(5):
                assert (await w.post(engine="status 500")).status == 500
            await until(lambda: standing(w, 0) is not None)
            assert standing(w, 0).reason == "status"
            await w.idle()

    run(test())


def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_asks() -> None:
    async def test() -> None:
        async with world(1) as w:
            assert (await w.post(engine="status 429")).status == 429
            await until(lambda: standing(w, 0) is not None)
            found = standing(w, 0)
            assert found.reason == "busy"
            assert found.until - found.since == pytest.approx(7.0)
            await w.idle()

    run(test())


def test_mistakes_of_clients_are_not_held_against_an_endpoint() -> None:
    async def test() -> None:
        async with world(1) as w:
            for _ in range(10):
                assert (await w.post(engine="status 400")).status == 400
            await w.idle()
            assert standing(w, 0) is None

    run(test())


def test_a_dead_endpoint_s_requests_go_to_the_next_of_the_list() -> None:
    async def test() -> None:
        async with world(3, strategy="round_robin") as w:
            await w.engines[0].stop()
            for _ in range(24):
                assert (await w.post()).status == 200
                await w.idle()
            assert standing(w, 0) is not None
            assert sorted(len(engine.seen) for engine in w.engines)[0] == 0
            assert sum(len(engine.seen) for engine in w.engines) == 24

    run(test())


def test_a_dead_endpoint_without_fallbacks_is_seen_to_refuse() -> None:
    async def test() -> None:
        async with world(1, fallbacks=0) as w:
            await w.engines[0].stop()
            for _ in range(2):
                assert (await w.post()).status == 503
            await until(lambda: standing(w, 0) is not None)
            assert standing(w, 0).reason == "connect"
            await w.idle()

    run(test())


def test_a_handler_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with world(2) as w:

            def fail(*_: Any, **__: Any) -> None:
                raise ZeroDivisionError("a fault of the strategy's own")

            monkeypatch.setattr(w.picker.router, "route_ranked", fail)
            assert (await w.post()).status == 200  # somewhere, all the same
            assert w.picker.fleet.faults == 1
            await w.idle()

            monkeypatch.setattr(w.picker, "pick", fail)
            assert (await w.post()).status == 500
            await w.idle()

    run(test())


def test_a_thousand_streams_at_once_some_aborted_while_engines_die() -> None:
    """Each gets an answer or an error, and nothing stays in flight."""

    async def test() -> None:
        chance = random.Random(7)
        async with world(4, strategy="least_connections") as w:
            for engine in w.engines:
                engine.pause = 0.1
            ends: dict[str, int] = dict.fromkeys(("whole", "error", "broken", "aborted"), 0)

            async def one(abort: bool) -> None:
                try:
                    async with asyncio.timeout(2 * LONG):
                        answer = await open_one(w, "stream 5")
                        if abort:
                            await answer.content.readany()
                            answer.close()
                            ends["aborted"] += 1
                            return
                        text = await answer.text()
                        ends["whole" if text.endswith("[DONE]\n\n") else "error"] += 1
                except aiohttp.ClientError:
                    ends["broken"] += 1

            tasks = [asyncio.create_task(one(chance.random() < 0.1)) for _ in range(1000)]
            await until(lambda: len(w.engines[0].seen) > 50)
            await w.engines[0].stop()
            await asyncio.gather(*tasks)
            assert sum(ends.values()) == 1000
            assert ends["whole"] > 500
            assert ends["aborted"] > 50
            await w.idle()

    run(test())


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED", "FULL_DUPLEX_STREAMED"])
@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
def test_each_response_mode(mode: str, usage: bool) -> None:
    def set_mode(bootstrap: dict[str, Any]) -> None:
        ext_proc(bootstrap)["processing_mode"]["response_body_mode"] = mode

    async def test() -> None:
        async with world(1, edit=set_mode, usage=usage) as w:
            answer = await w.post(engine="stream 40")
            assert answer.status == 200
            assert (await answer.text()).count('"tok"') == 40
            answer = await w.post(engine="json")
            assert json.loads(await answer.text())["usage"]["prompt_tokens"] == 9
            assert (await w.post(b"", engine="status 404")).status == 404
            await w.idle()
            predictions = w.picker.monitor.predictions
            seen = usage and mode != "NONE"
            assert predictions.requests == (2 if seen else 0)
            stats = w.picker.monitor.get_request_stats(asyncio.get_running_loop().time())
            assert (stats[w.engines[0].url].ttft > 0) == seen

    run(test())
