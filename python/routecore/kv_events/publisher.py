"""The sockets of one publisher: live messages, connection events, replays."""

import logging
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from routecore.kv_events.index import KVIndex
from routecore.kv_events.wire import Wire

END = (1 << 64) - 1
PER_TURN = 256  # messages of one publisher before the next one's turn
IDLE_SECONDS = 2.0  # without an answer of a replay
TRIES = 3  # of a replay, without progress
TOTAL_SECONDS = 120.0  # of making good one loss
COOL_SECONDS = 30.0  # after a replay that failed
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Of one message part: a step's events are some 100 KB. A publisher that sends more is cut off."""
TURN_BYTES = 4 * 1024 * 1024  # of one publisher before the next one's turn
REPLAYED = 10_000  # answers of a replay that may wait: as many as engines keep
REPLAYED_BYTES = 256 * 1024 * 1024  # of answers that may wait
SPARE_MESSAGES = (
    8  # beyond `hwm`, for what is on its way, until the bytes of a connection are too many
)

_LOG = logging.getLogger("routecore.kv_events")
_OPENED = zmq.EVENT_CONNECTED | zmq.EVENT_ACCEPTED
_WATCHED = _OPENED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED


class Publisher:
    """One rank's event stream, fed into the index. All calls come from the subscriber's thread.

    Args:
        context: Of the sockets.
        index: Where events go.
        url: The endpoint.
        rank: Its data-parallel rank.
        address: Where it publishes.
        replay: Where it answers replays, if it does.
        topic: Subscription.
        bind: Bind the address instead of connecting.
        hwm: Messages that may wait in the socket; what is beyond waits in the engine.
        slot: Called for leave to start a replay; False means later.
    """

    url: str
    rank: int
    address: str
    live: "zmq.Socket[bytes]"
    monitor: "zmq.Socket[bytes]"

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        index: KVIndex,
        url: str,
        rank: int,
        address: str,
        replay: str | None,
        *,
        topic: str,
        bind: bool,
        hwm: int,
        slot: Callable[["Publisher"], bool],
    ) -> None:
        self.url, self.rank, self.address = url, rank, address
        self._context, self._core, self._replay_address = context, index.core, replay
        self._bound = bind
        self._slot = slot
        self._wire = Wire((hwm + SPARE_MESSAGES) * MAX_MESSAGE_BYTES)
        self._replay_wire = Wire(REPLAYED_BYTES)
        self._replay_monitor: zmq.Socket[bytes] | None = None
        self.connected: bool = False
        self.since: float = time.monotonic()
        self.last_event: float | None = None
        self.replay: zmq.Socket[bytes] | None = None
        self._wanted: int | None = None
        self._tries = 0
        self._deadline = self._give_up = self._cool_until = 0.0
        self._broken = False
        self.live = context.socket(zmq.SUB)
        self.live.setsockopt(zmq.LINGER, 0)
        self.live.setsockopt(zmq.RCVHWM, hwm)
        self.live.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        # An engine takes a minute to start and is to be heard within a second then.
        self.live.setsockopt(zmq.RECONNECT_IVL, 100)
        self.live.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        # A peer that vanished without a word is noticed, and connected to anew.
        self.live.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self.live.setsockopt(zmq.HEARTBEAT_TIMEOUT, 30_000)  # while the socket is full, too
        self.live.setsockopt(zmq.SUBSCRIBE, topic.encode())
        self.monitor = self.live.get_monitor_socket(_WATCHED)
        try:
            (self.live.bind if bind else self.live.connect)(address)
        except zmq.ZMQError:
            self.close()
            raise

    @property
    def can_replay(self) -> bool:
        """Whether a loss may be asked for now."""
        return self._replay_address is not None and time.monotonic() >= self._cool_until

    @property
    def resyncing(self) -> bool:
        """Whether a replay runs or waits for leave to."""
        return self._wanted is not None

    def close(self) -> None:
        """Close all sockets."""
        self._hang_up()
        self.live.disable_monitor()
        for socket in (self.live, self.monitor):
            socket.close(0)

    def on_monitor(self) -> bool:
        """Connection events; True if more may wait."""
        for event in _drain(self.monitor, _Waits()):
            change = parse_monitor_message(event)
            kind = change["event"]
            if kind & _OPENED:
                self._wire.connected(change["value"])
            elif kind == zmq.EVENT_DISCONNECTED:
                self._wire.gone(change["value"])
                # What the old connection brought comes before the news of its end.
                while self.on_live():
                    pass
                self.connected, self._broken = False, True
                if not self._bound:
                    # After a message that is too large, the library would not connect again.
                    with suppress(zmq.ZMQError):
                        self.live.disconnect(self.address)
                    self.live.connect(self.address)
                self._core.disconnected(self.url, self.rank, self.can_replay)
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected, self.since = True, time.monotonic()
                self._cool_until = 0.0  # it may be another process, which answers
                if self._broken or self.can_replay:
                    # An engine that was there before tells what it holds; see also restarts.
                    self._ask(self._core.reconnected(self.url, self.rank, self.can_replay))
                self._broken = False
        return False

    def on_live(self) -> bool:
        """Live messages; True if more may wait."""
        messages, waits = [], _Waits()
        for frames in _drain(self.live, waits):
            # topic, sequence number, payload; other shapes are no events
            if len(frames) == 3 and len(frames[1]) == 8:
                messages.append((int.from_bytes(frames[1]), frames[2]))
        if waits.taken:
            self._wire.took_all()
        if messages:
            self.last_event = time.monotonic()
            self._ask(self._core.live(self.url, self.rank, messages, self.can_replay))
        return waits.more

    def on_replay(self) -> bool:
        """Answers of a replay; True if more may wait."""
        if self.replay is None:
            return False
        messages, ended, waits = [], False, _Waits()
        for frames in _drain(self.replay, waits):
            seq, payload = read_reply(frames)
            if seq is None:
                continue
            if seq == END or not payload:
                ended = True
                break
            messages.append((seq, payload))
        self._replay_wire.took(waits.taken)
        if messages:
            self._tries, self._deadline = 0, time.monotonic() + IDLE_SECONDS
            again = self._core.replayed(self.url, self.rank, messages)
            if again is not None:
                self._ask(again)
                return False
        if ended:
            self._end(True)
        return waits.more

    def check_bytes(self) -> None:
        """End a connection on which a message has no end: its parts would fill the memory."""
        if self._wire.is_over:
            _LOG.warning(
                "KV events: a message of %s rank %d at %s does not end; the connection is closed",
                self.url,
                self.rank,
                self.address,
            )
            self._wire.cut()

    def tick(self, now: float) -> None:
        """Start what waits for leave; give up what takes too long."""
        if self._wanted is None:
            return
        if self._replay_monitor is not None:
            for event in _drain(self._replay_monitor, _Waits()):
                self._replay_wire.connected(parse_monitor_message(event)["value"])
        if now > self._give_up or self._replay_wire.is_over:
            self._end(False)
        elif self.replay is None:
            self._start()
        elif now > self._deadline:
            self._tries += 1
            if self._tries >= TRIES:
                self._end(False)
            else:
                self._start()

    def _ask(self, start: int | None) -> None:
        """Ask for a replay; one that runs is void then."""
        if start is None:
            return
        if self._wanted is None:
            self._give_up = time.monotonic() + TOTAL_SECONDS
        self._wanted, self._tries = start, 0
        self._hang_up()
        self._start()

    def _start(self) -> None:
        if self._wanted is None or self._replay_address is None or not self._slot(self):
            return
        self._hang_up()
        self.replay = self._context.socket(zmq.DEALER)
        self.replay.setsockopt(zmq.LINGER, 0)
        self.replay.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.replay.setsockopt(zmq.RCVHWM, REPLAYED)  # an answer that is dropped is a gap
        self._replay_monitor = self.replay.get_monitor_socket(zmq.EVENT_CONNECTED)
        self.replay.connect(self._replay_address)
        self.replay.send_multipart([b"", struct.pack(">Q", self._wanted)])
        self._deadline = time.monotonic() + IDLE_SECONDS

    def _hang_up(self) -> None:
        if self.replay is not None:
            self.replay.disable_monitor()
            for socket in (self.replay, self._replay_monitor):
                if socket is not None:
                    socket.close(0)
        self.replay = self._replay_monitor = None
        self._replay_wire = Wire(REPLAYED_BYTES)

    def _end(self, complete: bool) -> None:
        self._hang_up()
        self._wanted = None
        if not complete:
            self._cool_until = time.monotonic() + COOL_SECONDS
        give_up = self._give_up
        self._ask(self._core.replay_end(self.url, self.rank, complete))
        if self._wanted is not None:
            self._give_up = give_up  # one loss after another is one: it must end too


class _Waits:
    """Whether a turn ended before the socket was empty, and what was taken, in bytes."""

    more = False
    taken = 0


def _drain(socket: "zmq.Socket[bytes]", waits: _Waits) -> Any:
    for _ in range(PER_TURN):
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        yield frames
        waits.taken += sum(map(len, frames))
        if waits.taken >= TURN_BYTES:
            break
    waits.more = True


def read_reply(frames: list[bytes]) -> tuple[int | None, bytes]:
    """Sequence number and payload of an answer, with a topic frame or without; None if neither."""
    if frames and not frames[0]:
        frames = frames[1:]  # the delimiter; a topic may be empty too
    if len(frames) not in (2, 3) or len(frames[-2]) != 8:
        return None, b""
    return int.from_bytes(frames[-2]), frames[-1]
