"""One background thread that hears the event streams of all engines."""

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from routecore.errors import RouteError
from routecore.kv_events.index import KVIndex
from routecore.kv_events.source import KVSource, same_place
from routecore.process import watch
from routecore.uncopied import Uncopied

try:
    import zmq

    from routecore.kv_events.publisher import Publisher
except ModuleNotFoundError as _error:
    raise ImportError("KV events need pyzmq: pip install 'routecore[kv-events]'") from _error

_Socket = zmq.Socket[bytes]

_LOG = logging.getLogger("routecore.kv_events")
_REPLAYS = 8  # at a time: an engine publishes nothing while it replays
_SWEEP_SECONDS = 0.25
_SILENCE_SECONDS = 60.0
_of_parents: list[object] = []  # sockets that a fork left behind


class KVEventSubscriber(Uncopied):
    """Keeps an index in step with the engines' caches.

    Losses are made good by replay where the engine offers it; where not, or if it fails, the
    engine's blocks are forgotten and its view is partial until it clears its cache or restarts.
    Takes about five file descriptors per publisher.

    Args:
        sources: Where the engines publish.
        index: The index to keep; a new one if left out.
        hwm: Messages per publisher that may wait here unread; what is beyond waits in the engine,
            which keeps 100,000 (vLLM's `hwm`). With parts of 4 MB at most this bounds the memory:
            128 MB per publisher, if payloads were as large as they may be.

    Raises:
        RouteError: If an address cannot be used, or an endpoint is given twice.
    """

    def __init__(
        self,
        sources: Iterable[KVSource] = (),
        *,
        index: KVIndex | None = None,
        hwm: int = 32,
    ) -> None:
        self.index: KVIndex = KVIndex() if index is None else index
        self._hwm = hwm
        self._publishers: dict[str, list[Publisher]] = {}
        self._sources: dict[str, KVSource] = {}
        self._closed = False
        self._open()
        watch(self)
        try:
            for source in sources:
                self.add(source)
        except BaseException:
            self.close()
            raise

    def _open(self, calls: Iterable[Callable[[], None]] = ()) -> None:
        """Make what the sockets need, and start the thread with these calls."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # SUB, monitor and replay each count, and libzmq allows 1,023 by default.
        self._context.set(zmq.MAX_SOCKETS, 65_536)
        self._selector = selectors.DefaultSelector()
        # Sockets that may have something to read, and whose they are.
        self._busy: dict[_Socket, tuple[Publisher, Callable[[], bool]]] = {}
        self._resyncing: set[Publisher] = set()
        self._calls: deque[Callable[[], None]] = deque(calls)
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._silent: set[tuple[str, int]] = set()
        self._users: dict[str, set[str]] = {}  # of each publisher, by its address
        self._thread = threading.Thread(target=self._run, name="routecore-kv-events", daemon=True)
        self._thread.start()

    def _at_exit(self) -> None:
        self.close()

    def _after_fork(self) -> None:
        """Listen anew: what the parent heard is forgotten, as what happened since is unknown."""
        if self._closed:
            return
        # The parent's sockets have their threads there: they are neither used nor closed here.
        _of_parents.append((self._context, self._publishers, self._busy, self._resyncing))
        for mine in (self._selector, self._wake_read, self._wake_write):
            mine.close()
        sources, self._sources, self._publishers = self._sources, {}, {}
        for url in sources:
            self.index.remove(url)
        self._open(partial(self._again, source) for source in sources.values())

    def _again(self, source: KVSource) -> None:
        try:
            self._add(source)
        except RouteError:
            _LOG.exception("after a fork the KV events of %s cannot be heard", source.url)

    def add(self, source: KVSource) -> None:
        """Listen to an endpoint's engine.

        Raises:
            RouteError: If its address cannot be used, or the endpoint is known already.
        """
        self._call(lambda: self._add(source))

    def remove(self, url: str) -> bool:
        """Stop listening and forget the endpoint's blocks; False if it is unknown."""
        return bool(self._call(lambda: self._remove(url)))

    def close(self) -> None:
        """Stop the thread; the index stays as it is. A second call changes nothing."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        self._thread.join(10.0)

    def status(self) -> dict[str, list[dict[str, Any]]]:
        """Per endpoint and rank: the index's counters, and how the connection is."""
        now = time.monotonic()
        return {
            url: [
                {
                    **(self.index.counters(url, p.rank) or {}),
                    "rank": p.rank,
                    "address": p.address,
                    "connected": p.connected,
                    "resyncing": p.resyncing,
                    "last_event_age_s": None if p.last_event is None else now - p.last_event,
                }
                for p in publishers
            ]
            for url, publishers in list(self._publishers.items())
        }

    def _call(self, work: Callable[[], Any]) -> Any:
        """Run on the thread that owns the sockets, and wait for it."""
        if self._closed or not self._thread.is_alive():
            raise RouteError("the subscriber is closed")
        done = threading.Event()
        result: list[Any] = [None, None]

        def run() -> None:
            try:
                result[0] = work()
            except Exception as error:
                result[1] = error
            done.set()

        self._calls.append(run)
        self._wake()
        while not done.wait(0.5):
            if not self._thread.is_alive():
                raise RouteError("the subscriber is closed")
        if result[1] is not None:
            raise result[1]
        return result[0]

    def _wake(self) -> None:
        with suppress(OSError):  # full, and so awake already; or closed
            self._wake_write.send(b"x")

    def _add(self, source: KVSource) -> None:
        if source.url in self._publishers:
            raise RouteError(f"endpoint {source.url!r} is subscribed to already: remove() it first")
        made: list[Publisher] = []
        try:
            for rank, address, replay in source.publishers():
                publisher = Publisher(
                    self._context,
                    self.index,
                    source.url,
                    rank,
                    address,
                    replay,
                    topic=source.topic,
                    bind=source.bind,
                    hwm=self._hwm,
                    slot=self._may_replay,
                )
                made.append(publisher)
                self._watch(publisher, publisher.live, publisher.on_live)
                self._watch(publisher, publisher.monitor, publisher.on_monitor)
        except (zmq.ZMQError, OSError) as error:
            for publisher in made:
                self._drop(publisher)
            raise RouteError(f"event address of {source.url!r}: {error}") from None
        self._publishers[source.url] = made
        self.index.core.expect(source.url, source.ranks)
        for publisher in made:
            self._users.setdefault(same_place(publisher.address), set()).add(source.url)
        self._share(made)
        self._sources[source.url] = source

    def _remove(self, url: str) -> bool:
        publishers = self._publishers.pop(url, [])
        self._sources.pop(url, None)
        for publisher in publishers:
            self._silent.discard((url, publisher.rank))
            self._drop(publisher)
            users = self._users.get(same_place(publisher.address), set())
            users.discard(url)
            if not users:
                self._users.pop(same_place(publisher.address), None)
        self.index.remove(url)
        self._share(publishers)
        return bool(publishers)

    def _share(self, publishers: list[Publisher]) -> None:
        """Believe no publisher that two endpoints are said to have: one's blocks are not both's."""
        for place in {same_place(publisher.address) for publisher in publishers}:
            users = self._users.get(place, set())
            for url in users:
                self.index.core.set_shared(url, self._is_shared(url))
            if len(users) == 2:
                _LOG.warning(
                    "KV events: %s are said to publish at %s alike, so that none of them is "
                    "believed: give every engine an event port of its own, and name it",
                    " and ".join(sorted(users)),
                    place,
                )

    def _is_shared(self, url: str) -> bool:
        places = (same_place(publisher.address) for publisher in self._publishers.get(url, ()))
        return any(len(self._users.get(place, ())) > 1 for place in places)

    def _drop(self, publisher: Publisher) -> None:
        self._resyncing.discard(publisher)
        for watched in (publisher.live, publisher.monitor):
            self._busy.pop(watched, None)
            if not watched.closed:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(watched.fileno())
        publisher.close()

    def _watch(self, publisher: Publisher, watched: _Socket, handler: Callable[[], bool]) -> None:
        # A ZMQ descriptor tells of a change once: what a handler leaves is kept in `_busy`.
        entry = (watched, publisher, handler)
        self._selector.register(watched.fileno(), selectors.EVENT_READ, entry)
        self._busy[watched] = (publisher, handler)

    def _may_replay(self, asking: Publisher) -> bool:
        running = sum(p.replay is not None and p is not asking for p in self._resyncing)
        return running < _REPLAYS

    def _run(self) -> None:
        next_sweep = 0.0
        try:
            while not self._closed:
                timeout = 0.0 if self._busy else 0.005 if self._resyncing else _SWEEP_SECONDS
                for key, _ in self._selector.select(timeout):
                    if key.data is None:
                        self._wake_read.recv(4096)
                    else:
                        watched, publisher, handler = key.data
                        self._busy[watched] = (publisher, handler)
                while self._calls:
                    self._calls.popleft()()
                now = time.monotonic()
                if now >= next_sweep:
                    next_sweep = now + _SWEEP_SECONDS
                    self._sweep(now)
                self._turn(now)
        finally:
            for publishers in self._publishers.values():
                for publisher in publishers:
                    self._drop(publisher)
            while self._calls:
                self._calls.popleft()()
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()
            self._context.term()

    def _turn(self, now: float) -> None:
        """Let every publisher that has something read a part of it."""
        for watched, (publisher, handler) in list(self._busy.items()):
            if not self._guard(handler):
                self._busy.pop(watched, None)
            if publisher.resyncing:
                self._resyncing.add(publisher)
        for publisher in list(self._resyncing):
            self._guard(publisher.on_replay)
            self._guard(partial(publisher.tick, now))
            if not publisher.resyncing:
                self._resyncing.discard(publisher)

    def _guard(self, handler: Callable[[], bool | None]) -> bool:
        """Whatever one publisher does, the others are heard."""
        try:
            return bool(handler())
        except Exception:
            _LOG.exception("a KV event stream could not be read")
            return False

    def _sweep(self, now: float) -> None:
        """Look at every socket now and then, whatever its descriptor said; warn of silence."""
        for url, publishers in self._publishers.items():
            for publisher in publishers:
                self._busy[publisher.live] = (publisher, publisher.on_live)
                self._busy[publisher.monitor] = (publisher, publisher.on_monitor)
                publisher.check_bytes()
                who = (url, publisher.rank)
                if (
                    publisher.last_event is None
                    and now - publisher.since > _SILENCE_SECONDS
                    and who not in self._silent
                ):
                    self._silent.add(who)
                    _LOG.warning(
                        "no KV event from %s rank %d at %s for %.0f s: is it started with "
                        "--kv-events-config and enable_kv_cache_events?",
                        *who,
                        publisher.address,
                        _SILENCE_SECONDS,
                    )
