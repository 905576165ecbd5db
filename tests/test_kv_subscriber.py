"""The subscriber on real sockets: losses, restarts, replays, and peers that vanish."""

import logging
import resource
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from kv_messages import cleared, message, removed, stored
from kv_sockets import Sockets, listening, wait
from ports import free_ports
from routecore import RouteError
from routecore.kv_events import KVEventSubscriber, KVIndex, KVSource, publisher
from test_kv_index import BLOCK, prompt

A, B = "http://a:8000", "http://b:8000"


@pytest.fixture
def make() -> Iterator[Callable[..., Sockets]]:
    made: list[Sockets] = []
    with zmq.Context() as context:

        def one(**options: Any) -> Sockets:
            made.append(Sockets(context, **options))
            return made[-1]

        yield one
        for sockets in made:
            sockets.close()


def depth(subscriber: KVEventSubscriber, *blocks: int, url: str = A) -> int:
    return subscriber.index.matched(prompt(*blocks), [url])[0][2] // BLOCK


def count(subscriber: KVEventSubscriber, name: str, url: str = A) -> Any:
    return subscriber.status()[url][0].get(name)


def block(number: int, parent: int | None = None) -> Any:
    """A store of one block whose hash is its number."""
    return stored([number], parent, prompt(number)[:-1])


@pytest.mark.parametrize("old", [False, True])
def test_events_reach_the_index(make: Callable[..., Sockets], old: bool) -> None:
    engine = make()
    with listening(KVSource(A, engine.address)) as subscriber:
        engine.send(block(1), block(2, 1), old=old)
        wait(lambda: depth(subscriber, 1, 2) == 2)
        assert subscriber.index.is_exact(A)
        engine.send(removed([2]), old=old)
        wait(lambda: depth(subscriber, 1, 2) == 1)
        engine.send(cleared(), old=old)
        wait(lambda: depth(subscriber, 1, 2) == 0)
        assert count(subscriber, "last_event_age_s") < 10


@pytest.mark.parametrize("topic_in_reply", [True, False])
def test_a_gap_is_replayed(make: Callable[..., Sockets], topic_in_reply: bool) -> None:
    engine = make(topic_in_reply=topic_in_reply)
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.send(removed([1]), lost=True)
        engine.send(block(2))
        wait(lambda: depth(subscriber, 2) == 1)
        assert depth(subscriber, 1) == 0
        assert subscriber.index.is_exact(A)
        assert count(subscriber, "gaps") == 1
        assert engine.asked[-1] == 0  # from the last message that was applied


def test_a_gap_without_replay_forgets_the_endpoint(make: Callable[..., Sockets]) -> None:
    engine = make()
    with listening(KVSource(A, engine.address)) as subscriber:
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.send(block(3), lost=True)
        engine.send(block(2))
        wait(lambda: depth(subscriber, 2) == 1)
        assert depth(subscriber, 1) == 0
        assert not subscriber.index.is_exact(A)


def test_who_joins_late_catches_up_by_the_replay(make: Callable[..., Sockets]) -> None:
    engine = make()
    engine.send(block(1))
    engine.send(block(2, 1))
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        wait(lambda: depth(subscriber, 1, 2) == 2)  # without any live message
        wait(lambda: subscriber.index.is_exact(A))


def test_a_ring_that_ran_over_leaves_a_partial_view(make: Callable[..., Sockets]) -> None:
    engine = make(ring=2)
    for number in range(5):
        engine.send(block(number))
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        wait(lambda: depth(subscriber, 4) == 1)
        wait(lambda: count(subscriber, "overruns") == 1)
        assert depth(subscriber, 0) == 0
        assert not subscriber.index.is_exact(A)


@pytest.mark.parametrize("beyond", [False, True])
def test_a_restart_is_seen(make: Callable[..., Sockets], beyond: bool) -> None:
    engine = make()
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        for number in range(3):
            engine.send(block(number))
        wait(lambda: depth(subscriber, 2) == 1)
        engine.restart()
        for number in range(10, 15 if beyond else 11):
            engine.send(block(number), lost=True)  # before anybody is connected again
        wait(lambda: depth(subscriber, 10) == 1)
        assert [depth(subscriber, n) for n in range(3)] == [0, 0, 0]
        wait(lambda: subscriber.index.is_exact(A))
        assert count(subscriber, "restarts") == 1


@pytest.mark.parametrize("replay", [False, True])
def test_an_engine_that_vanishes_is_not_promised(
    make: Callable[..., Sockets], replay: bool
) -> None:
    engine = make()
    source = KVSource(A, engine.address, engine.replay if replay else None)
    with listening(source) as subscriber:
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.close()
        wait(lambda: depth(subscriber, 1) == 0)
        assert not count(subscriber, "connected")
        engine.open()
        wait(lambda: count(subscriber, "connected") and engine.subscribed())
        engine.send(block(2))
        wait(lambda: depth(subscriber, 2) == 1)
        assert depth(subscriber, 1) == 0  # it came back as another process


def test_a_replay_without_answers_ends_in_a_partial_view(
    make: Callable[..., Sockets], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "IDLE_SECONDS", 0.05)
    engine = make(ring=None)
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        wait(lambda: count(subscriber, "resyncing") is False)
        assert len(engine.asked) == publisher.TRIES
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.send(block(2), lost=True)
        engine.send(block(3))
        wait(lambda: depth(subscriber, 3) == 1)  # no further replay for a while
        assert depth(subscriber, 1) == 0
        assert len(engine.asked) == publisher.TRIES


def test_what_comes_during_a_replay_is_applied_behind_it(make: Callable[..., Sockets]) -> None:
    engine = make()
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.silent = True
        engine.send(block(2), lost=True)
        for number in range(3, 30):
            engine.send(block(number))
        wait(lambda: count(subscriber, "resyncing"))
        assert depth(subscriber, 1) == depth(subscriber, 20) == 0
        engine.silent = False  # the second try is answered
        wait(lambda: depth(subscriber, 29) == 1)
        assert [depth(subscriber, n) for n in range(1, 30)] == [1] * 29
        assert subscriber.index.is_exact(A)


def test_frames_that_are_no_events_are_passed_over(make: Callable[..., Sockets]) -> None:
    engine = make()
    with listening(KVSource(A, engine.address)) as subscriber:
        for frames in ([b"x"], [b"t", b"short", b""], [b"", b"", b"", b""]):
            engine.live.send_multipart(frames)
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        engine.live.send_multipart([b"t", struct.pack(">Q", 1), b"\xc1garbage"])
        wait(lambda: count(subscriber, "unreadable") == 1)
        assert depth(subscriber, 1) == 0


def test_a_message_without_bound_is_cut_off(make: Callable[..., Sockets]) -> None:
    engine = make(ring=100)
    with listening(KVSource(A, engine.address, engine.replay)) as subscriber:
        engine.send(block(0))
        wait(lambda: depth(subscriber, 0) == 1)
        engine.live.send_multipart([b"t", struct.pack(">Q", 1), bytes(9 << 20)])
        engine.seq = 1

        def heard() -> bool:
            engine.send(block(5))
            time.sleep(0.05)
            return depth(subscriber, 5) == 1

        wait(heard)
        assert count(subscriber, "unreadable") == 0


def test_a_slow_subscriber_loses_and_recovers(make: Callable[..., Sockets]) -> None:
    engine = make(ring=100_000)
    index = KVIndex(seed=1)
    source = KVSource(A, engine.address, engine.replay)
    with listening(source, index=index, hwm=1) as subscriber:
        engine.live.setsockopt(zmq.SNDHWM, 1)
        engine.send(block(0))
        wait(lambda: depth(subscriber, 0) == 1)
        stall = stored(list(range(2000)), None, [7] * 2000 * BLOCK)
        for _ in range(400):
            engine.send(stall)
        engine.send(cleared())
        engine.send(block(5))
        wait(lambda: depth(subscriber, 5) == 1 and not count(subscriber, "resyncing"))

        def recovered() -> bool:
            """The tail itself may be lost, and the next one tells."""
            engine.send(block(5))
            time.sleep(0.1)
            newest = count(subscriber, "last_seq") == engine.seq - 1
            return newest and index.is_exact(A)

        wait(recovered)
        assert index.blocks == 1


def test_what_a_busy_subscriber_has_not_read_waits_in_the_engine() -> None:
    free = threading.Event()
    with zmq.Context() as context, context.socket(zmq.XPUB) as engine:
        engine.setsockopt(zmq.LINGER, 0)
        engine.setsockopt(zmq.SNDHWM, 1)
        engine.setsockopt(zmq.SNDTIMEO, 500)
        engine.setsockopt(zmq.XPUB_NODROP, 1)
        port = engine.bind_to_random_port("tcp://127.0.0.1")
        with listening(KVSource(A, f"tcp://127.0.0.1:{port}")) as subscriber:
            assert engine.poll(5_000)
            engine.recv()
            subscriber._calls.append(lambda: free.wait(30.0))
            subscriber._wake()
            sent = 0
            end = time.monotonic() + 60
            while sent < 400 and time.monotonic() < end:
                try:
                    engine.send_multipart([b"", struct.pack(">Q", sent), b"x" * (1 << 20)])
                    sent += 1
                except zmq.Again:
                    if sent >= 32:  # else what carries it had no turn yet
                        break
            # Its 32 messages, the one in hand on each side, and what the system buffers.
            assert 32 <= sent < 100
            free.set()
            wait(lambda: count(subscriber, "unreadable") == sent)  # and none is lost


def test_ranks_publish_on_ports_of_their_own() -> None:
    with zmq.Context() as context:
        ports = free_ports(2)
        base, second = (Sockets(context, port=port) for port in ports)
        try:
            with listening(KVSource(A, base.address, ranks=2)) as subscriber:
                base.send(block(1))
                second.send(block(1), block(2, 1))
                wait(lambda: depth(subscriber, 1, 2) == 2)
                assert [p["rank"] for p in subscriber.status()[A]] == [0, 1]
        finally:
            base.close()
            second.close()


def test_routers_that_hear_the_same_engine_agree(make: Callable[..., Sockets]) -> None:
    engine = make()
    source = KVSource(A, engine.address, engine.replay)
    with listening(source) as early:
        for number in range(20):
            engine.send(block(number))
        engine.send(removed(list(range(0, 20, 3))))
        with listening(source) as late:  # each with block keys of its own
            for subscriber in (early, late):
                wait(lambda s=subscriber: count(s, "last_seq") == 20)
            held = [depth(early, number) for number in range(20)]
            assert held == [depth(late, number) for number in range(20)]
            assert held == [int(number % 3 > 0) for number in range(20)]


def test_a_removed_endpoint_is_forgotten_and_may_return(make: Callable[..., Sockets]) -> None:
    engine = make()
    source = KVSource(A, engine.address, engine.replay)
    with listening(source) as subscriber:
        engine.send(block(1))
        wait(lambda: depth(subscriber, 1) == 1)
        with pytest.raises(RouteError, match="already"):
            subscriber.add(source)
        assert subscriber.remove(A)
        assert not subscriber.remove(A)
        assert depth(subscriber, 1) == 0
        subscriber.add(source)
        wait(lambda: depth(subscriber, 1) == 1)


def test_a_thousand_endpoints_are_heard_by_one_thread() -> None:
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10 * count
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"needs {wanted} file descriptors, may have {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 8000)
        live = context.socket(zmq.XPUB)
        live.setsockopt(zmq.XPUB_VERBOSE, 1)
        live.setsockopt(zmq.LINGER, 0)
        live.setsockopt(zmq.SNDHWM, 0)
        # All hear one socket, each as a publisher of its own.
        port = live.bind_to_random_port("tcp://127.0.0.1")
        sources = [KVSource(f"http://{i}", f"tcp://127.0.0.1:{port}") for i in range(count)]
        with listening(*sources) as subscriber:
            for _ in sources:
                assert live.poll(30_000)
                live.recv()
            live.send_multipart([b"", struct.pack(">Q", 0), message(block(1))])
            wait(lambda: all(p["batches"] for ps in subscriber.status().values() for p in ps), 30)
            assert subscriber.index.blocks == 1
            # That they are a thousand engines is not believed.
            assert subscriber.index.matched(prompt(1), [sources[7].url]) == [(0, 0, 0)]
        live.close()


@pytest.mark.parametrize(
    "address", ["tcp://nowhere", "http://a:1", "", "inproc://", "tcp://a:65535"]
)
def test_bad_addresses_are_named(address: str) -> None:
    with pytest.raises(RouteError, match=r"address"):
        KVSource(A, address, ranks=2)


def test_an_address_in_use_is_named(make: Callable[..., Sockets]) -> None:
    engine = make()
    with pytest.raises(RouteError, match=r"http://a:8000.*in use"):
        KVEventSubscriber([KVSource(A, engine.address, bind=True)])


def test_publishers_that_connect_are_heard_on_a_bound_socket() -> None:
    with zmq.Context() as context:
        probe = context.socket(zmq.PUB)
        port = probe.bind_to_random_port("tcp://127.0.0.1")
        probe.close()
        subscriber = None
        end = time.monotonic() + 30
        while subscriber is None:
            try:
                source = KVSource(A, f"tcp://127.0.0.1:{port}", bind=True)
                subscriber = KVEventSubscriber([source])
            except RouteError:
                assert time.monotonic() < end
        live = context.socket(zmq.XPUB)
        live.setsockopt(zmq.LINGER, 0)
        try:
            live.connect(f"tcp://127.0.0.1:{port}")
            wait(lambda: subscriber.status()[A][0]["connected"])
            assert live.poll(30_000)
            live.send_multipart([b"", struct.pack(">Q", 0), message(block(1))])
            wait(lambda: depth(subscriber, 1) == 1)
        finally:
            subscriber.close()
            live.close()


def test_silence_is_said_once(
    make: Callable[..., Sockets], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from routecore.kv_events import subscriber as module

    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_SWEEP_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING), listening(KVSource(A, make().address)):
        wait(lambda: "no KV event" in caplog.text)
        time.sleep(0.1)
    assert caplog.text.count("no KV event") == 1


def test_a_closed_subscriber_says_so() -> None:
    subscriber = KVEventSubscriber()
    subscriber.close()
    subscriber.close()
    with pytest.raises(RouteError, match="closed"):
        subscriber.remove(A)


def test_two_endpoints_on_one_publisher_are_believed_neither_until_one_leaves(
    make: Callable[..., Sockets], caplog: pytest.LogCaptureFixture
) -> None:
    engine = make()
    sources = [
        KVSource(A, engine.address),
        KVSource(B, engine.address.replace("127.0.0.1", "LocalHost")),
    ]
    with listening(*sources) as subscriber:
        engine.send(block(1))
        wait(lambda: all(p["batches"] for ps in subscriber.status().values() for p in ps))
        index = subscriber.index
        assert index.matched(prompt(1), [A, B]) == [(0, 0, 0)] * 2
        assert not index.is_exact(A) and not index.is_exact(B)
        assert f"{A} and {B} are said to publish" in caplog.text
        subscriber.remove(B)
        assert index.matched(prompt(1), [A]) == [(BLOCK, BLOCK, BLOCK)]
        assert index.is_exact(A)


def test_an_endpoint_is_exact_once_all_its_ranks_were_heard(make: Callable[..., Sockets]) -> None:
    engine = make()
    source = KVSource(A, engine.address, ranks=2)
    subscriber = KVEventSubscriber([source])
    try:
        wait(lambda: subscriber.status()[A][0]["connected"] and engine.subscribed())
        engine.send(block(1))
        wait(lambda: subscriber.status()[A][0]["batches"])
        assert not subscriber.index.is_exact(A)
        # What is known of the first rank is true all the same.
        assert subscriber.index.matched(prompt(1), [A]) == [(BLOCK, BLOCK, BLOCK)]
    finally:
        subscriber.close()
