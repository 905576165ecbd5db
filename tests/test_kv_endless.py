"""A publisher whose message has no end is cut off before its parts fill the memory."""

import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest
from kv_messages import message, stored
from kv_sockets import wait
from routecore.kv_events import KVEventSubscriber, KVSource, publisher, wire

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MB = bytes(1024 * 1024)
MOST = 1000  # MB until the test gives up


def frame(body: bytes, more: bool) -> bytes:
    return struct.pack(">BQ", 2 | more, len(body)) + body


class Raw:
    """Speaks the library's protocol by hand, which can do what the library does not."""

    def __init__(self, kind: bytes, talk: Callable[[socket.socket, int], None]) -> None:
        self.kind, self.talk = kind, talk
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                try:
                    self._greet(connection)
                    self.talk(connection, number)
                except OSError:
                    pass
            number += 1

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(GREETING)
        got = 0
        while got < 64:
            got += len(connection.recv(64 - got))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(self.kind)) + self.kind
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        connection.recv(4096)  # what the other side is, and its subscription


def silent(connection: socket.socket, _: int) -> None:
    while connection.recv(4096):
        pass


def endless(connection: socket.socket, sent: list[int]) -> None:
    sent.append(0)
    while sent[-1] < MOST:
        connection.sendall(frame(MB, True))
        sent[-1] += 1
        time.sleep(0.004)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not count the bytes")
def test_a_message_without_an_end_is_cut_off_and_the_next_connection_is_heard() -> None:
    sent: list[int] = []

    def talk(connection: socket.socket, number: int) -> None:
        if number == 0:
            return endless(connection, sent)
        # Again and again, as an engine does: news of the connection may come behind the first.
        for seq in range(1000):
            payload = message(stored([seq + 1], None, [seq, 2, 3, 4]))
            for body, more in ((b"topic", True), (seq.to_bytes(8, "big"), True), (payload, False)):
                connection.sendall(frame(body, more))
            time.sleep(0.05)

    raw = Raw(b"PUB", talk)
    subscriber = KVEventSubscriber([KVSource("a", raw.address)], hwm=1)
    try:
        wait(lambda: subscriber.index.core.blocks > 0, 60)
        assert 0 < sent[0] < MOST
    finally:
        subscriber.close()
        raw.server.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not count the bytes")
def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "REPLAYED_BYTES", 8 * 1024 * 1024)
    sent: list[int] = []
    live = Raw(b"PUB", silent)
    answers = Raw(b"ROUTER", lambda connection, _: endless(connection, sent))
    subscriber = KVEventSubscriber([KVSource("a", live.address, answers.address)])
    try:
        wait(lambda: sent and not subscriber.status()["a"][0]["resyncing"], 60)
        assert all(0 < count < MOST for count in sent)
    finally:
        subscriber.close()
        live.server.close()
        answers.server.close()


def test_what_is_no_such_connection_is_not_counted() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(MB[:1000])
        assert wire.received(one.fileno()) is None
        connection = wire.Wire(0)
        connection.connected(one.fileno())
        assert not connection.is_over
        assert one.recv(1) == b"\0"  # it is open, and ours
    assert wire.received(-1) is None
