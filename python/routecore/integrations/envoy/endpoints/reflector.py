"""A kind of object of a Kubernetes cluster, kept in step by its list and watch calls.

The client is `kubernetes_asyncio`, which brings configuration, authentication and TLS; what it
lacks is an informer.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

_log = logging.getLogger("routecore.picker")

T = TypeVar("T")
Call = Callable[..., Awaitable[Any]]
"""A `list_…` method of the client."""

_PAGE = 500
_WATCH_SECONDS = 300  # after which the server ends a watch; bookmarks keep its place until then
_GRACE_SECONDS = 30.0
_SHORTEST, _LONGEST = 0.5, 30.0  # pauses after failures
_MAX_LINE = 16 << 20
_GONE = 410


class Stale(Exception):
    """The place in the cluster's history is too old: all has to be listed again."""


class Refused(Exception):
    """The server answered with an error."""


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an object's metadata."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "more": "continue"}):
    resource_version: str = ""
    more: str | None = None


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] = []


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Bookmark(msgspec.Struct):
    metadata: Meta


class Reflector(Generic[T]):
    """Lists and watches until cancelled; never raises.

    Args:
        call: The client's method.
        kind: The type of an item: a Struct with `metadata: Meta`.
        what: Its name in the log.
        changed: Called with all objects, by namespace and name, after each change.
        arguments: Of the call: namespace, selectors.
    """

    def __init__(
        self,
        call: Call,
        kind: type[T],
        what: str,
        changed: Callable[[dict[tuple[str, str], T]], object],
        **arguments: Any,
    ) -> None:
        self._call, self._arguments = call, arguments
        self._item = msgspec.json.Decoder(kind)
        self._what, self._changed = what, changed
        self._objects: dict[tuple[str, str], T] = {}
        self._version = ""

    async def run(self) -> None:
        """Keep in step."""
        pause = _SHORTEST
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                if await self._watch():
                    pause = _SHORTEST
                    continue
            except Stale:
                listed = False
            except Exception as error:  # whatever the network or the server does, it is tried again
                detail = str(error) or type(error).__name__
                _log.warning("Kubernetes %s: %s; again in %.1f s", self._what, detail, pause)
                # A server that refuses the watch itself may do so because of where it begins.
                listed = listed and not isinstance(error, Refused)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST, 2 * pause)

    async def _list(self) -> None:
        objects: dict[tuple[str, str], T] = {}
        more: str | None = None
        while True:
            given = {"limit": _PAGE, **({"_continue": more} if more else {})}
            response = await self._call(**self._arguments, **given, _preload_content=False)
            try:
                _check(response)
                page = msgspec.json.decode(await response.read(), type=_List)
            finally:
                response.close()
            for raw in page.items:
                item: Any = self._item.decode(raw)
                objects[_key(item)] = item
            more = page.metadata.more
            if not more:
                break
        self._objects, self._version = objects, page.metadata.resource_version
        self._changed(self._objects)

    async def _watch(self) -> bool:
        """Follow the changes until the server ends the watch; whether it lasted."""
        response = await self._call(
            **self._arguments,
            watch=True,
            allow_watch_bookmarks=True,
            resource_version=self._version,
            timeout_seconds=_WATCH_SECONDS,
            _request_timeout=_WATCH_SECONDS + _GRACE_SECONDS,
            _preload_content=False,
        )
        lasted = False
        try:
            _check(response)
            async for line in _lines(response):
                self._hear(msgspec.json.decode(line, type=_Event))
                lasted = True
        finally:
            response.close()
        return lasted

    def _hear(self, event: _Event) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            raise Stale() if status.code == _GONE else Refused(status.message)
        if event.type == "BOOKMARK":
            mark = msgspec.json.decode(event.object, type=_Bookmark)
            self._version = mark.metadata.resource_version
            return
        item: Any = self._item.decode(event.object)
        if event.type == "DELETED":
            self._objects.pop(_key(item), None)
        else:
            self._objects[_key(item)] = item
        self._version = item.metadata.resource_version
        self._changed(self._objects)


def _key(item: Any) -> tuple[str, str]:
    return item.metadata.namespace, item.metadata.name


def _check(response: Any) -> None:
    if response.status == _GONE:
        raise Stale()
    if response.status >= 400:
        raise Refused(f"the API server answered {response.status} {response.reason}")


async def _lines(response: Any) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; aiohttp's own end at 64 KB, and pods are longer."""
    kept = bytearray()
    async for piece in response.content.iter_any():
        kept += piece
        if b"\n" not in piece:
            if len(kept) > _MAX_LINE:
                raise Refused(f"an event of more than {_MAX_LINE} bytes")
            continue
        *lines, rest = bytes(kept).split(b"\n")
        kept = bytearray(rest)
        for line in lines:
            if line.strip():
                yield line
