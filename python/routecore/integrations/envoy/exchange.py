"""One request: what its gateway sends of it, what is answered, and the load that it is.

The gateway opens a stream for each request. It counts from the choice until the stream ends, in
whatever way it ends: the answer is complete, the client has left, the gateway is gone.
"""

import asyncio
import itertools
import os
import time
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from routecore.integrations.envoy import asked, outcome, responses, wire
from routecore.integrations.envoy.decision import Pick, Picker, Refused
from routecore.integrations.envoy.metrics import Counters
from routecore.integrations.envoy.usage import Passing
from routecore.integrations.shared.shadow import Choice

_EOF = grpc.aio.EOF
_NUMBERS = itertools.count()
_PREFIX = f"{os.getpid():x}-"


class Exchange:
    """One stream of the gateway's.

    Args:
        picker: Chooses and counts.
        counters: What becomes of streams, for the metrics.
        context: gRPC's, to read from and to write to.
    """

    __slots__ = (
        "_body",
        "_bytes",
        "_choice",
        "_context",
        "_counters",
        "_headers",
        "_hint",
        "_is_idle",
        "_modes",
        "_passing",
        "_picked",
        "_picker",
        "_status",
        "_task",
        "_whole",
        "id",
        "is_answering",
        "is_leaving",
    )

    def __init__(self, picker: Picker, counters: Counters, context: Any) -> None:
        self.id: str = f"{_PREFIX}{next(_NUMBERS):x}"
        self.is_answering: bool = False
        self.is_leaving: bool = False
        self._is_idle = False
        self._picker, self._counters, self._context = picker, counters, context
        self._task = asyncio.current_task()
        self._modes = asked.STANDARD
        self._hint: tuple[str, ...] | None = None
        self._headers: dict[str, str] | None = None
        self._body: list[memoryview] = []
        self._bytes = 0
        self._picked: str | None = None  # where it counts
        self._choice: Choice | None = None  # in shadow mode, until it is known where it went
        self._status: tuple[int | None, float | None] | None = None
        self._passing: Passing | None = None
        self._whole: bool | None = None  # whether the answer's body came to its end, if it is seen

    async def run(self) -> None:
        """Serve the stream until it ends; the request has left the load then."""
        try:
            await self._serve()
        except Refused as refused:
            self._counters.refused(refused.status)
            answer = responses.refusal(
                refused.status, refused.reason, str(refused), refused.headers
            )
            await self._context.write(answer)
        except asyncio.CancelledError:
            if not self.is_leaving:
                raise
            if self._task is not None:
                self._task.uncancel()
        finally:
            self._end()

    @property
    def may_leave(self) -> bool:
        """Whether the gateway can go on without us: all that it waits for was answered."""
        return self.is_answering and self._is_idle and self._modes.response != asked.FULL_DUPLEX

    def leave(self) -> None:
        """Let the answer pass without us: the gateway goes on with it when the stream is closed."""
        if self._task is not None and not self.is_leaving:
            self.is_leaving = True
            self._task.cancel()

    async def _serve(self) -> None:
        read, write = self._context.read, self._context.write
        while True:
            self._is_idle = True
            raw = await read()
            self._is_idle = False
            if raw is _EOF:
                return
            kind = raw[0] if raw else 0
            if kind == wire.REQUEST_BODY:
                handling = self._request_body(*wire.body_of(raw))
                del raw  # a large body is not held twice
                await handling
            elif kind == wire.RESPONSE_BODY:
                await self._response_body(*wire.body_of(raw))
            else:
                message = pb.ProcessingRequest.FromString(raw)
                part = message.WhichOneof("request")
                if part == "request_headers":
                    await self._request_headers(message)
                elif part == "response_headers":
                    self._response_headers(message)
                    await write(responses.RESPONSE_HEADERS)
                elif part == "request_trailers":
                    if not self.is_answering and self._modes.request == asked.FULL_DUPLEX:
                        await self._decide(last=False)
                    await write(responses.REQUEST_TRAILERS)
                elif part == "response_trailers":
                    await write(responses.RESPONSE_TRAILERS)

    async def _request_headers(self, message: Any) -> None:
        self._modes = asked.modes(message)
        self._hint = asked.subset(message)
        if self._picker.reads_headers:
            self._headers = asked.headers(message.request_headers)
        if message.request_headers.end_of_stream or self._modes.request in _AT_ONCE:
            await self._reply(await self._pick(), with_body=False)
        elif self._modes.request in asked.BUFFERED:
            await self._context.write(responses.REQUEST_HEADERS)

    async def _request_body(self, piece: memoryview, last: bool) -> None:
        if self.is_answering:  # the choice was made without it
            if self._modes.request == asked.STREAMED:
                await self._context.write(responses.REQUEST_BODY)
            return
        if len(piece):
            self._body.append(piece)
            self._bytes += len(piece)
            most = self._picker.settings.max_body_bytes
            if self._bytes > most:
                raise Refused(413, "body_too_large", f"a body of more than {most} bytes")
        del piece
        if self._modes.request in asked.BUFFERED:
            await self._reply(await self._pick(self._content()), with_body=True)
        elif last:
            await self._decide(last=True)

    async def _decide(self, *, last: bool) -> None:
        """Choose by all of the body, and hand it on."""
        content = self._content()
        pick = await self._pick(content)
        await self._reply(pick, with_body=False)
        size = self._picker.settings.chunk_bytes
        for chunk in wire.chunks(wire.REQUEST_BODY, memoryview(content), size, last=last):
            await self._context.write(chunk)

    def _content(self) -> bytes:
        """The body, copied once out of the messages that brought it."""
        pieces, self._body = self._body, []
        return b"".join(pieces)

    async def _pick(self, content: bytes = b"") -> Pick:
        pick = await self._picker.pick(self.id, self._hint, self._headers, content)
        if pick.choice is None:
            self._picked = pick.url
        self._choice = pick.choice
        self._headers = None
        return pick

    async def _reply(self, pick: Pick, *, with_body: bool) -> None:
        self.is_answering = True
        if pick.named:
            answer = responses.destination(pick.named, with_body=with_body)
        else:
            answer = responses.REQUEST_BODY if with_body else responses.REQUEST_HEADERS
        await self._context.write(answer)

    def _response_headers(self, message: Any) -> None:
        part = message.response_headers
        head = outcome.of(part, message.attributes)
        self._status = (head.status, head.retry_after)
        self._served_by(head.served)
        url, ends = self._picked, self._picker.fleet.ends
        if url is None:
            return
        if head.reason is not None:
            self._picked = None
            ends.on_request_failed(url, self.id, time.time(), head.reason, head.retry_after)
        elif self._picker.settings.usage:
            self._passing, self._whole = Passing(head.streams), bool(part.end_of_stream)

    def _served_by(self, address: str | None) -> None:
        """Count the request where it is, if the gateway sent it elsewhere in the end."""
        url = None if address is None else self._picker.pool.url(address)
        if url is None:
            return
        fleet, choice, ours, now = self._picker.fleet, self._choice, self._picked, time.time()
        if choice is not None and fleet.moved is not None:
            fleet.moved.sent(choice, url, self.id, now)
            self._choice, self._picked = None, url
        elif ours is not None and ours != url:
            fleet.ends.on_request_failed(ours, self.id, now, "unknown")
            fleet.ends.on_new_request(url, self.id, now)
            self._picked = url

    async def _response_body(self, piece: memoryview, last: bool) -> None:
        if self._passing is not None and self._picked is not None:
            if not self._passing.begun and self._passing.streams and len(piece):
                self._picker.fleet.ends.on_request_response(self._picked, self.id, time.time())
            self._passing.feed(piece)
            self._whole = self._whole or last
        if self._modes.response == asked.FULL_DUPLEX:
            size = self._picker.settings.chunk_bytes
            for chunk in wire.chunks(wire.RESPONSE_BODY, piece, size, last=last):
                await self._context.write(chunk)
        else:
            await self._context.write(responses.RESPONSE_BODY)

    def _end(self) -> None:
        """The request leaves the load; a second call changes nothing."""
        url, self._picked = self._picked, None
        if url is None:
            return
        ends, now = self._picker.fleet.ends, time.time()
        if self._status is None:
            # Where an endpoint fails, the gateway answers in its stead: here the client left.
            ends.on_request_failed(url, self.id, now, "client")
            return
        if self._whole is False and not self.is_leaving:
            ends.on_request_failed(url, self.id, now, "client")
            return
        if self._passing is not None:
            used = self._passing.usage()
            if used is not None:
                ends.on_usage(url, self.id, *used)
                if used.cached_tokens is not None:
                    self._picker.telemetry.used(used.cached_tokens)
        status, retry_after = self._status
        ends.on_request_complete(url, self.id, now, status, retry_after)


# Modes in which a choice cannot wait for the body.
_AT_ONCE = (asked.NONE, asked.STREAMED)
