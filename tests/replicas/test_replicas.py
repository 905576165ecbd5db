"""Routers that hear each other, by a real Redis server and by ZMQ, and what goes wrong there."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port
from replica_servers import Server, Slow, until
from routecore import Fleet, RouteError, _core
from routecore.endpoints.table import EndpointTable
from routecore.replicas import Replicas, channel_of
from routecore.replicas.replicas import interval

URLS = ("http://a:1", "http://b:1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server; skipped where none is installed."""
    pytest.importorskip("redis", reason="the extra `replicas` is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    made = Server(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def fleets() -> Iterator[Callable[..., Fleet]]:
    """Makes fleets that are closed after the test."""
    made: list[Fleet] = []

    def make(replicas: object) -> Fleet:
        made.append(Fleet(URLS, "least_connections", replicas=replicas))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def send(fleet: Fleet, count: int) -> list[object]:
    """So many requests that are in flight from now on."""
    return [fleet.request().__enter__() for _ in range(count)]


def in_flight(fleet: Fleet) -> float:
    return float(fleet.table.column("in_flight").sum())


def others(fleet: Fleet) -> int:
    assert fleet.replicas is not None
    return sum(fleet.replicas.others(url) for url in URLS)


def test_two_fleets_over_redis_choose_as_one(server: Server, fleets: Callable[..., Fleet]) -> None:
    one, two = fleets(server.url), fleets(server.url)
    send(one, 3)
    until(lambda: in_flight(two) == 3, "the second has not heard of the first's requests")
    send(two, 1)
    assert list(two.table.column("in_flight")) == [2.0, 2.0]
    assert two.replicas is not None
    until(lambda: in_flight(one) == 4, "the first has not heard of the second's request")
    # A third that joins knows at once, and who leaves takes nothing but its own along.
    three = fleets(server.url)
    until(lambda: others(three) == 4, "the newcomer has not heard of the others")
    one.close()
    until(lambda: others(three) == 1, "the one that left still counts")
    until(lambda: len(two.replicas.peers) == 1, "the one that left is still there")  # type: ignore[union-attr]


def test_groups_on_one_server_do_not_hear_each_other(
    server: Server, fleets: Callable[..., Fleet]
) -> None:
    mine, theirs = EndpointTable(), EndpointTable()
    for table in (mine, theirs):
        for url in URLS:
            table.add(url)
    other = Replicas(server.url, table=theirs, group="b")
    own = Replicas(channel_of(server.url, "b"), table=mine, group="a")  # the same channel even
    try:
        theirs.core.sent(URLS[0], "r", 0.0)
        until(lambda: own.traffic.ignored["group"] > 0, "nothing was ignored")
        assert own.others(URLS[0]) == 0 and not own.peers
    finally:
        own.close()
        other.close()


def test_a_server_that_is_gone_and_comes_back_empty(
    server: Server, fleets: Callable[..., Fleet]
) -> None:
    one, two = fleets(server.url), fleets(server.url)
    send(one, 5)
    until(lambda: others(two) == 5, "not heard")
    server.stop()
    # Nobody is decided by what was heard for longer than it is good for; own requests go on.
    until(lambda: others(two) == 0, "a word outlived its time")
    send(two, 2)
    assert in_flight(two) == 2
    assert one.replicas is not None
    until(lambda: one.replicas is not None and one.replicas.is_down, "not noticed")
    server.start()
    until(lambda: others(two) == 5, "the server is back, and nobody heard")
    until(lambda: others(one) == 2, "the server is back, and nobody heard")


def test_a_server_with_another_password_or_none_at_all_stops_nothing(
    server: Server, fleets: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")
    for url in (
        f"redis://:wrong-secret@127.0.0.1:{server.port}",
        f"redis://127.0.0.1:{free_port()}",
        f"rediss://127.0.0.1:{server.port}",
    ):
        fleet = fleets(url)
        send(fleet, 1)
        until(lambda f=fleet: f.replicas.is_down, "not noticed")  # type: ignore[misc]
        assert in_flight(fleet) == 1
    one, two = (fleets(f"redis://:right@127.0.0.1:{server.port}") for _ in range(2))
    send(one, 2)
    until(lambda: others(two) == 2, "the right password does not help")
    assert "wrong-secret" not in caplog.text
    assert "Other routers are not heard" in caplog.text


def test_noise_on_the_channel_is_counted_and_logged_once(
    server: Server, fleets: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    import redis

    one, two = fleets(server.url), fleets(server.url)
    send(one, 2)
    until(lambda: others(two) == 2, "not heard")
    client = redis.Redis.from_url(server.url)
    tries = itertools.count()

    def counted() -> bool:
        # A reconnect may lose some: at most once is all that the channel promises.
        if next(tries) % 50 == 0:
            for noise in (b"", b"hello", bytes(5 << 20), b"rcL\x09" + bytes(40)) * 2:
                client.publish("routecore:replicas:default", noise)
        assert two.replicas is not None
        ignored = two.replicas.traffic.ignored
        return all(ignored[why] > 0 for why in ("malformed", "too_large", "version"))

    until(counted, "the noise was not counted")
    until(lambda: others(two) == 2, "the noise drove the others out")
    assert sum("is ignored" in record.message for record in caplog.records) <= 6
    client.close()


def test_a_process_that_is_killed_takes_its_load_along(
    server: Server, fleets: Callable[..., Fleet]
) -> None:
    code = (
        "import sys, time\n"
        "from routecore import Fleet\n"
        f"fleet = Fleet({URLS!r}, 'least_connections', replicas={server.url!r})\n"
        "requests = [fleet.request().__enter__() for _ in range(1000)]\n"
        "print('sent', flush=True)\n"
        "time.sleep(600)\n"
    )
    here = fleets(server.url)
    send(here, 1)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout is not None and peer.stdout.readline() == b"sent\n"
            until(lambda: others(here) == 1000, "the peer is not heard")
        finally:
            peer.kill()
    until(lambda: others(here) == 0, "the dead peer's load stays")
    assert in_flight(here) == 1


def test_words_that_come_late_count_for_so_much_less(
    server: Server, fleets: Callable[..., Fleet]
) -> None:
    """A proxy that delays everything by more than a word is good for."""
    proxy = Slow(server.port, 3.5)
    one, two = (fleets(f"redis://127.0.0.1:{proxy.port}") for _ in range(2))
    send(one, 2)
    send(two, 1)
    time.sleep(1.0)
    assert (in_flight(one), in_flight(two)) == (2, 1)
    proxy.close()


def test_routers_in_one_folder_and_routers_at_listed_ports_hear_each_other(
    tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    first, second = free_port(), free_port()
    listed = f"zmq://127.0.0.1:{first},127.0.0.1:{second}"
    folder = f"zmq+ipc://{tmp_path}/s"
    for addresses in (
        (folder, folder),
        (listed, f"{listed}?bind=127.0.0.1:{second}"),
    ):
        one, two = (fleets(address) for address in addresses)
        send(one, 3)
        send(two, 1)
        until(lambda f=two: others(f) == 3, f"{addresses}: not heard")  # type: ignore[misc]
        until(lambda f=one: in_flight(f) == 4, f"{addresses}: not heard")  # type: ignore[misc]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_of_a_fork_is_another_router(tmp_path: Path, fleets: Callable[..., Fleet]) -> None:
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    code = (
        "import os, signal, time\n"
        "from routecore import Fleet\n"
        f"fleet = Fleet({URLS!r}, 'least_connections', replicas='zmq+ipc://{tmp_path}/s')\n"
        "requests = [fleet.request().__enter__() for _ in range(3)]\n"
        "child = os.fork()\n"
        "def heard():\n"
        "    return sum(fleet.replicas.others(u) for u in fleet.table.urls)\n"
        "end = time.time() + 30\n"
        "wanted = 0 if child else 3\n"
        "while time.time() < end and (heard() != wanted or len(fleet.replicas.peers) != 1):\n"
        "    time.sleep(0.05)\n"
        "assert heard() == wanted and len(fleet.replicas.peers) == 1, (child, heard())\n"
        "if not child:\n"
        "    time.sleep(60)\n"
        "os.kill(child, signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], timeout=90, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("address", "fix"),
    [
        ("kafka://a", "expected redis://…"),
        ("", "expected redis://…"),
        ("zmq://", "zmq://router:5570"),
        ("zmq://a", "zmq://router:5570"),
        ("zmq://a:0", "zmq://router:5570"),
        ("zmq:///run/routecore", "a folder is ipc:///run/routecore"),
        ("ipc://here", "did you mean ipc:///here?"),
        ("zmq+ipc://here", "did you mean ipc:///here?"),
        ("ipc://", "absolute path"),
        ("redis://a:port", "replicas redis://a:port"),
        ("zmq+tcp://a:5570", "did you mean zmq://a:5570?"),
        ("tcp://a:5570", "did you mean zmq://a:5570?"),
        ("redi://user:secret@a", "did you mean redis://a?"),
        ("redis+tls://a", "did you mean rediss://a?"),
        ("valky://a", "did you mean valkey://a?"),
        ("a:6379", "did you mean redis://a:6379?"),
        ("redis:6379", "did you mean redis://redis:6379?"),
        ("10.0.0.1:5570", "did you mean redis://10.0.0.1:5570 or zmq://10.0.0.1:5570?"),
        ("[::1]:6380", "did you mean rediss://[::1]:6380?"),
        ("/run/routecore", "did you mean ipc:///run/routecore?"),
        ("ray://head:10001", "did you mean ray?"),
    ],
)
def test_an_address_that_is_none_says_so_and_names_the_fix(address: str, fix: str) -> None:
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    pytest.importorskip("redis", reason="the extra `replicas` is not installed")
    with pytest.raises(RouteError, match="replicas") as caught:
        channel_of(address)
    said = str(caught.value)
    assert fix in said and "secret" not in said and "\n" not in said


def test_an_address_that_names_a_file_says_so(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    (tmp_path / "file").touch()
    with pytest.raises(RouteError, match="is a file; expected a folder"):
        channel_of(f"ipc://{tmp_path}/file")


@pytest.mark.parametrize("scheme", ["valkey", "Redis", "VALKEY"])
def test_a_server_goes_by_either_name(
    scheme: str, server: Server, fleets: Callable[..., Fleet]
) -> None:
    one, two = fleets(server.url), fleets(server.url.replace("redis", scheme, 1))
    send(one, 2)
    until(lambda: others(two) == 2, f"{scheme}: not heard")


def test_valkeys_is_tls() -> None:
    pytest.importorskip("redis", reason="the extra `replicas` is not installed")
    import redis
    from routecore.replicas.over_redis import RedisChannel

    channel = channel_of("valkeys://:word@a:6380/2")
    assert isinstance(channel, RedisChannel)
    made = channel._client().connection_pool
    assert made.connection_class is redis.SSLConnection
    assert made.connection_kwargs["password"] == "word" and made.connection_kwargs["db"] == 2


def test_what_fails_at_one_router_is_doubted_at_the_other_and_explain_says_so() -> None:
    one, two = (Fleet(URLS, "least_connections") for _ in range(2))
    says, hears = (
        _core.Replicas(fleet.table.core, group="g", origin=at + 1, epoch=1)
        for at, fleet in enumerate((one, two))
    )
    bad = URLS[0]
    for fleet in (one, two):
        fleet.explain()  # from now on it knows its endpoints
    for name in map(str, range(5)):
        one.monitor.on_new_request(bad, name, 1.0)
        one.monitor.on_request_failed(bad, name, 1.0, "status")
    message = says.tell(0.0)
    assert message is not None and hears.hear(message, 0.0)[0] == "news"
    standing = two.monitor.standing(bad)
    assert standing is not None and standing.state == "doubted" and standing.reason is None
    assert f"{bad} (doubted: out at another router)" in str(two.explain())
    assert "None" not in str(two.explain())
    assert dict(hears.hints())["doubted"] == 1 and not two.monitor.endpoints_out
    # One request at a time, although it is as idle as the other.
    urls = [two.request().__enter__().url for _ in range(5)]
    assert urls.count(bad) == 1
    hears.pass_time(2.9)
    assert two.monitor.standing(bad) is not None
    hears.pass_time(3.0)
    assert two.monitor.standing(bad) is None and two.monitor.ejections == 0
    assert two.request().__enter__().url == bad


def test_many_routers_speak_more_rarely_each_but_never_fall_silent() -> None:
    assert [interval(0.05, others) for others in (0, 1, 4)] == [0.05] * 3
    assert interval(0.05, 7) == 0.0875 and interval(0.2, 7) == 0.2
    assert all(others / interval(0.05, others) <= 80 for others in range(1, 40))
    assert interval(0.05, 255) == 0.5  # of 3 seconds after which a router is gone


def test_the_core_takes_what_comes() -> None:
    table = _core.Table()
    with pytest.raises(RouteError, match="every"):
        _core.Replicas(table, group="g", origin=1, epoch=1, every=0.0)
    one = _core.Replicas(table, group="g", origin=1, epoch=1)
    assert one.hear(bytes(100), 0.0) == ("malformed", 0, True)
    assert one.tell(0.0) is not None and one.tell(0.01) is None
