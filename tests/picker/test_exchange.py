"""Streams as other gateways, other versions and nobody at all would send them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

pb = pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

import grpc  # noqa: E402
from routecore.integrations.envoy.exchange import Exchange  # noqa: E402
from world import World, chat, run, until, world  # noqa: E402

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
BODY = json.dumps(chat("x" * 3_000)).encode()
EOF = grpc.aio.EOF


@contextlib.asynccontextmanager
async def stream(**given: Any) -> AsyncIterator[tuple[World, Any]]:
    """A picker without an Envoy, and a stream to it."""
    async with contextlib.AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(3, start=False, **given))
        where = f"127.0.0.1:{w.server.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(where))
        yield w, channel.stream_stream(METHOD)()


def headers(mode: str | None = "FULL_DUPLEX_STREAMED", **more: Any) -> bytes:
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(**more))
    if mode is not None:
        config = message.protocol_config
        config.request_body_mode = config.DESCRIPTOR.fields_by_name[
            "request_body_mode"
        ].enum_type.values_by_name[mode].number  # fmt: skip
    return bytes(message.SerializeToString())


def body(content: bytes, last: bool) -> bytes:
    part = pb.HttpBody(body=content, end_of_stream=last)
    return bytes(pb.ProcessingRequest(request_body=part).SerializeToString())


async def reply(call: Any) -> tuple[str, Any]:
    raw = await call.read()
    assert raw is not EOF
    message = pb.ProcessingResponse.FromString(raw)
    name = message.WhichOneof("response")
    return name, getattr(message, name)


def named(part: Any) -> list[str]:
    (option,) = part.response.header_mutation.set_headers
    return str(option.header.raw_value.decode()).split(",")


@pytest.mark.parametrize("mode", ["FULL_DUPLEX_STREAMED", None], ids=["given", "not given"])
def test_the_last_piece_sent_twice(mode: str | None) -> None:
    """Envoy from 1.35 on does so now and then."""

    async def test() -> None:
        async with stream() as (w, call):
            for message in (headers(mode), body(BODY[:900], False), body(BODY[900:], True)):
                await call.write(message)
            name, part = await reply(call)
            assert name == "request_headers"
            assert len(named(part)) == 3
            name, part = await reply(call)
            sent = part.response.body_mutation.streamed_response
            assert (name, sent.body, sent.end_of_stream) == ("request_body", BODY, True)
            await call.write(body(BODY[900:], True))
            assert w.in_flight == 1
            await call.done_writing()
            assert await call.read() is EOF  # nothing more is said
            await w.idle()

    run(test())


def test_a_mode_that_cannot_wait_for_the_body() -> None:
    async def test() -> None:
        async with stream() as (w, call):
            await call.write(headers("STREAMED"))
            assert named((await reply(call))[1])
            for last in (False, True):
                await call.write(body(b"x" * 10, last))
                assert (await reply(call))[0] == "request_body"
            await call.done_writing()
            await w.idle()

    run(test())


def test_a_mode_without_bodies() -> None:
    async def test() -> None:
        async with stream() as (w, call):
            await call.write(headers("NONE"))
            assert named((await reply(call))[1])
            await call.done_writing()
            await w.idle()

    run(test())


@pytest.mark.parametrize("raw", [b"\x22\x05x", b"\x12\xff\xff\xff\xff\xff\xff", b"\xff" * 9])
def test_bytes_that_are_no_message_end_the_stream(raw: bytes) -> None:
    async def test() -> None:
        async with stream() as (w, call):
            await call.write(headers(end_of_stream=True))
            await reply(call)
            await call.write(raw)
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await call.read() is EOF
            await w.idle()

    run(test())


def test_messages_that_say_nothing_are_passed_over() -> None:
    async def test() -> None:
        async with stream() as (w, call):
            await call.write(b"")
            await call.write(pb.ProcessingRequest(observability_mode=True).SerializeToString())
            await call.write(headers(end_of_stream=True))
            assert named((await reply(call))[1])
            await call.done_writing()
            await w.idle()

    run(test())


def test_a_gateway_that_goes_between_choice_and_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice counts already, and nobody waits for the reply."""

    async def test() -> None:
        async with stream() as (w, call):
            chosen = asyncio.Event()

            async def never(*_: Any, **__: Any) -> None:
                chosen.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(Exchange, "_reply", never)
            await call.write(headers())
            await call.write(body(BODY, True))
            await chosen.wait()
            assert w.in_flight == 1
            call.cancel()
            await w.idle()

    run(test())


def test_a_slow_pick_waits() -> None:
    async def test() -> None:
        async with stream() as (w, call):
            await call.write(headers())
            await until(lambda: w.server.counters.open == 1)
            await asyncio.sleep(0.3)
            await call.write(body(BODY, True))
            assert named((await reply(call))[1])
            await call.done_writing()
            await w.idle()

    run(test())
