"""Requests of every form pass through the real Envoy as they came, to the endpoint chosen."""

import asyncio
import json
import socket
from typing import Any

import pytest
from world import CHAT, World, chat, needs_envoy, run, world

pytestmark = needs_envoy


async def sent(w: World, body: bytes, **headers: str) -> dict[str, Any]:
    """Post it; it arrived as it was, at the endpoint that answered."""
    answer = await w.post(body, **headers)
    assert answer.status == 200
    found = json.loads(await answer.read())
    engine = w.engine(found)
    assert engine.seen[-1] == ("POST", CHAT, body)
    assert engine.headers[-1]["x-gateway-destination-endpoint"].split(",")[0] == engine.address
    await w.idle()
    return found


@pytest.mark.parametrize("buffered", [False, True], ids=["streamed", "buffered"])
def test_bodies_of_every_size_and_form(buffered: bool) -> None:
    bodies = [
        json.dumps(chat("x" * 2_000)).encode(),
        json.dumps(chat("y" * 62_000)).encode(),
        json.dumps(chat("z" * 300_000)).encode(),
        b"",
        b"{",
        b"not JSON at all",
        b"[1, 2, 3]",
        b'{"model": "m", "prompt": "\\ud800 a lone surrogate"}',
        '{"model": "m", "prompt": "Größe 你好"}'.encode(),
        json.dumps({"model": "m", "prompt": list(range(4_000))}).encode(),
        bytes(range(256)) * 500,
    ]

    async def test() -> None:
        async with world(buffered=buffered) as w:
            for body in bodies:
                await sent(w, body)
            assert sum(len(engine.seen) for engine in w.engines) == len(bodies)
            assert w.picker.fleet.faults == 0

    run(test())


@pytest.mark.parametrize("buffered", [False, True], ids=["streamed", "buffered"])
def test_twenty_megabytes(buffered: bool) -> None:
    async def test() -> None:
        async with world(buffered=buffered) as w:
            await sent(w, json.dumps(chat("0123456789" * 2_000_000)).encode())

    run(test())


def test_a_request_without_body_is_answered_at_once() -> None:
    async def test() -> None:
        async with world() as w:
            for method in ("GET", "DELETE", "OPTIONS"):
                answer = await w.client.request(method, w.url + "/v1/models")
                assert answer.status == 200
                assert w.engine(await answer.json()).seen[-1] == (method, "/v1/models", b"")
            await w.idle()

    run(test())


def test_a_prompt_goes_back_to_the_endpoint_that_has_it_cached() -> None:
    async def test() -> None:
        async with world(5) as w:
            for body in (chat("a long document " * 400), {"prompt": list(range(3_000))}):
                homes = {
                    (await sent(w, json.dumps(body | {"n": n}).encode()))["at"]
                    for n in (1, 1, 1, 1)
                }
                assert len(homes) == 1

    run(test())


def test_a_session_header_is_read() -> None:
    async def test() -> None:
        async with world(5, strategy="session_affinity", params={"session_key": "x-who"}) as w:
            homes = {
                who: {(await sent(w, b"{}", x_who=who))["at"] for _ in range(4)}
                for who in map(str, range(12))
            }
            assert all(len(home) == 1 for home in homes.values())
            assert len({home.pop() for home in homes.values()}) > 1

    run(test())


def test_trailers_of_the_request_end_its_body() -> None:
    """Sent by hand, since few clients can. Without retries: Envoy 1.40 itself sends such a body
    twice where a route has a retry policy."""

    async def test() -> None:
        def allow_trailers(bootstrap: dict[str, Any]) -> None:
            listener = bootstrap["static_resources"]["listeners"][0]
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            manager["http_protocol_options"] = {"enable_trailers": True}

        async with world(1, edit=allow_trailers, fallbacks=0) as w:
            host, port = w.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps(chat("hi")).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
                b"trailer: x-checksum\r\nconnection: close\r\n\r\n"
                + f"{len(body):x}".encode()
                + b"\r\n"
                + body
                + b"\r\n0\r\nx-checksum: 1\r\n\r\n"
            )
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            assert answer.startswith(b"HTTP/1.1 200")
            print(w.engines[0].seen[-1][2])
            assert w.engines[0].seen[-1][2] == body
            await w.idle()

    run(test())


def test_two_envoys_share_a_picker() -> None:
    async def test() -> None:
        async with world(2, envoys=2, strategy="round_robin") as w:
            for envoy in w.envoys * 4:
                answer = await w.client.post(envoy.url + CHAT, data=b"{}")
                assert answer.status == 200
                await answer.read()
            await w.idle()
            assert [len(engine.seen) for engine in w.engines] == [4, 4]

    run(test())


def test_an_endpoint_over_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")

    async def test() -> None:
        from aiohttp import web

        async def six(_request: web.Request) -> web.Response:
            return web.Response(text="six")

        try:
            app = web.Application()
            app.router.add_get("/", six)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "::1", 0).start()
        except OSError:
            pytest.skip("no ::1")
        port = runner.addresses[0][1]
        try:
            async with world(0, endpoints=f"[::1]:{port}") as w:
                answer = await w.client.get(w.url)
                assert (answer.status, await answer.text()) == (200, "six")
        finally:
            await runner.cleanup()

    run(test())
