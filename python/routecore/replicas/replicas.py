"""The threads that tell other routers of this one's load, and hear of theirs."""

import hashlib
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

import msgspec

from routecore import _core
from routecore.endpoints.table import EndpointTable, default_table
from routecore.errors import RouteError
from routecore.process import watch
from routecore.replicas.address import channel_of
from routecore.replicas.channel import Channel
from routecore.replicas.keys import grain_of
from routecore.uncopied import Uncopied

_LOG = logging.getLogger("routecore.replicas")
_TURN = 0.25
"""Seconds between two looks at who fell silent, at most."""
_MOST_HEARD = 80.0
"""Messages a second that a router should hear of all others: many speak more rarely each …"""
_LONGEST_INTERVAL = 0.5
"""… but never as rarely as would be taken for silence, in seconds."""
_GATHER = 0.4
"""Share of the time between two messages of a router for which messages are gathered …"""
_MOST_GATHER = 0.02
"""… and seconds at most."""
_LONGEST_PAUSE = 5.0
"""Seconds until a channel that is down is tried again, at most."""

_WHY_IGNORED = {
    "malformed": "cannot be read: something else speaks there",
    "too_large": "is too large",
    "version": "is of another version of routecore",
    "group": "is of another group of routers",
    "grain": "is of a router that cuts prompts otherwise",
    "same_name": "is of another router with the name of this one",
    "full": "is of one router, or of endpoints, more than are listened to",
}


class Peer(msgspec.Struct, frozen=True):
    """Another router that is heard.

    Attributes:
        origin: What it calls itself.
        age: Seconds since its last word.
        endpoints: Endpoints on which it has anything in flight, or had lately.
    """

    origin: str
    age: float
    endpoints: int


class Traffic(msgspec.Struct, frozen=True):
    """What was sent and heard since the start.

    Attributes:
        sent: Messages sent.
        sent_bytes: Their bytes.
        heard: Messages of others that counted.
        heard_bytes: Bytes of all that came, own messages that came back among them.
        conflicts: Messages under the name of a router that is another one, or started later: two
            routers have one name.
        placements_sent: Prefixes that others were told of.
        placements_heard: Prefixes that others told of.
        placements_unknown: Of these, those that continue one that was never heard; not used.
        placements_lost: Prefixes not sent whole, or not used, because there were too many.
        delay: Seconds that a message is under way; 0 where own messages do not come back.
        ignored: Messages that did not count, by reason.
    """

    sent: int
    sent_bytes: int
    heard: int
    heard_bytes: int
    conflicts: int
    placements_sent: int
    placements_heard: int
    placements_unknown: int
    placements_lost: int
    delay: float
    ignored: dict[str, int]


class Hints(msgspec.Struct, frozen=True):
    """What became of others' words on endpoints that fail.

    Attributes:
        doubted: Endpoints that are doubted now: they get one request of this router at a time.
        heard: Doubts since the start.
        confirmed: Of these, those after which this router put the endpoint out itself,
        refuted: those that an answer ended,
        faded: and those that ended by time, or because the other router has it back.
        passed_over: Hints that were not followed: half of the endpoints were away already, or this
            one had been doubted in the last 30 seconds.
    """

    doubted: int
    heard: int
    confirmed: int
    refuted: int
    faded: int
    passed_over: int


LIVING: "WeakSet[Replicas]" = WeakSet()
"""Those of this process, for metrics to be read of."""


class HasHashing(Protocol):
    """A router, as far as it matters how it names prompts."""

    @property
    def shared_hashing(self) -> tuple[int, int, int] | None:
        """Seed, bytes and token ids of a block; None where others do not know the seed."""
        ...


class Replicas(Uncopied):
    """Lets this router know what the others of its group have in flight.

    Nothing of it is on the way of a request: two background threads send and hear, and the routers
    and monitors of the table read sums. Where the channel is down, each router goes by its own
    figures and those heard in the last 3 seconds; it is tried again by itself.

    Args:
        channel: What carries the messages, or its address: `redis://host:6379/0`, `rediss://…`,
            `zmq://router-headless:5570`, `ipc:///run/routecore`, `ray`.
        table: Where load is kept; the one that all parts share unless they are given one.
        group: Routers with the same endpoints have the same; others on the same server another.
        name: Of this router; drawn at random if left out. Two routers must not share one.
        router: Routes by the table: the prefixes that it sent where are shared, too, if its
            `hash_seed` was given (`seed_of` makes one of a secret). Left out: load alone is.

    Raises:
        RouteError: An address that is none.
        ImportError: The channel needs a package that is missing; names the extra to install.
    """

    def __init__(
        self,
        channel: Channel | str,
        *,
        table: EndpointTable | None = None,
        group: str = "default",
        name: str | None = None,
        router: HasHashing | None = None,
    ) -> None:
        self._grain = grain_of(None if router is None else router.shared_hashing)
        self.table: EndpointTable = default_table() if table is None else table
        self.group = group
        self._name = name
        self._channel: Channel = channel_of(channel, group) if isinstance(channel, str) else channel
        self._closed = False
        self._is_down = False
        self._start()
        watch(self)
        LIVING.add(self)

    def _start(self) -> None:
        origin = secrets.randbits(64) if self._name is None else hash_of(self._name)
        self._core = _core.Replicas(
            self.table.core,
            group=self.group,
            grain=self._grain,
            origin=origin,
            epoch=time.time_ns(),
            every=self._channel.every,
        )
        self._stop = threading.Event()
        self._opened = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"routecore-replicas-{word}", daemon=True)
            for word, run in (("hear", self._hear), ("tell", self._tell))
        ]
        self._process = os.getpid()
        for thread in self._threads:
            thread.start()

    def __repr__(self) -> str:
        return f"<Replicas of group {self.group!r}: {len(self.peers)} others>"

    @property
    def peers(self) -> list[Peer]:
        """The other routers that are heard now."""
        seen = self._core.peers(time.monotonic())
        return [Peer(f"{origin:016x}", age, endpoints) for origin, age, endpoints in seen]

    @property
    def traffic(self) -> Traffic:
        """Messages and bytes since the start."""
        counts, delay, ignored = self._core.counts()
        return Traffic(**dict(counts), delay=delay, ignored=dict(ignored))

    @property
    def has_joined(self) -> bool:
        """Whether this router took over what another had learned before it came."""
        return self._core.has_joined()

    @property
    def hints(self) -> Hints:
        """What became of others' words on endpoints that fail."""
        return Hints(**dict(self._core.hints()))

    @property
    def is_down(self) -> bool:
        """Whether the channel is down, and this router on its own."""
        return self._is_down

    def others(self, url: str) -> int:
        """Requests that other routers have in flight on the endpoint."""
        return self._core.others(url)[0]

    def close(self) -> None:
        """Say good-bye, and stop. What others reported counts no more."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        with suppress(Exception):
            if self._opened.is_set():
                self._channel.send(self._core.bye(time.monotonic()))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2.0)
        with suppress(Exception):
            self._channel.close()
        self._core.clear()
        LIVING.discard(self)

    def _hear(self) -> None:
        pause = 0.1
        while not self._stop.is_set():
            try:
                if not self._opened.is_set():
                    self._channel.open()
                    self._opened.set()
                    self._up()
                    pause = 0.1
                messages = self._channel.receive(_TURN)
                for message in messages:
                    self._note(*self._core.hear(message, time.monotonic()))
                if messages:
                    # Others speak all the time: several messages a turn cost far less than a turn
                    # for each.
                    self._stop.wait(min(_GATHER * self._channel.every, _MOST_GATHER))
            except Exception as error:  # whatever a client raises: the network must end nothing
                self._down(error)
                # Who is not heard is gone in time, whether the channel comes back or not.
                until = time.monotonic() + pause
                while not self._stop.wait(min(_TURN, pause)) and time.monotonic() < until:
                    self._core.pass_time(time.monotonic())
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._core.pass_time(time.monotonic())

    def _tell(self) -> None:
        others = 0
        while not self._stop.wait(interval(self._channel.every, others)):
            others = len(self._core.peers(time.monotonic()))
            # Here, too: a client that hangs in the other thread must keep nobody's load alive.
            self._core.pass_time(time.monotonic())
            if not self._opened.is_set():
                continue
            message = self._core.tell(time.monotonic())
            if message is None:
                continue
            try:
                self._channel.send(message)
            except Exception as error:  # as above
                self._down(error)

    def _up(self) -> None:
        if self._is_down:
            _LOG.warning("Other routers are heard again.")
        self._is_down = False

    def _down(self, error: Exception) -> None:
        self._opened.clear()
        if not self._is_down and not self._stop.is_set():
            _LOG.warning("Other routers are not heard: %s. Trying again.", error)
        self._is_down = True
        with suppress(Exception):
            self._channel.close()

    def _note(self, word: str, origin: int, first: bool) -> None:
        if first:
            _LOG.warning(
                "A message of %016x is ignored: it %s.", origin, _WHY_IGNORED.get(word, word)
            )

    def _at_exit(self) -> None:
        if os.getpid() == self._process:
            self.close()

    def _after_fork(self) -> None:
        """The child is another router; what it heard it has to hear again."""
        if self._closed:
            return
        renew = getattr(self._channel, "after_fork", None)
        if renew is not None:
            renew()
        self._start()


def interval(every: float, others: int) -> float:
    """Seconds between two messages of a router, at least, beside so many others.

    With many of them each speaks more rarely, so that all together stay bounded.
    """
    return max(every, min(others / _MOST_HEARD, _LONGEST_INTERVAL))


def hash_of(name: str) -> int:
    """A number for a name, the same in every process."""
    if not name:
        raise RouteError("replicas: expected a name, got an empty text")
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
