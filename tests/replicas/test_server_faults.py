"""What a Redis server can be besides gone: behind TLS, full; and many routers of a large fleet."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from replica_servers import Server, until
from routecore import Fleet, _core

URLS = ("http://a:1", "http://b:1")


@pytest.fixture(autouse=True)
def needs_redis() -> None:
    pytest.importorskip("redis", reason="the extra `replicas` is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


def pair(url: str) -> tuple[Fleet, Fleet]:
    one, two = (Fleet(URLS, "least_connections", replicas=url) for _ in range(2))
    return one, two


def heard(fleet: Fleet) -> int:
    assert fleet.replicas is not None
    return sum(fleet.replicas.others(url) for url in URLS)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A key and a certificate of localhost that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, made = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True
    )
    return key, made


@pytest.fixture
def tls_port(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[int]:
    """Of a server that speaks TLS there."""
    key, made = certificate
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(made), "--tls-key-file", str(key)]
    try:
        server = Server(
            tmp_path, *options, "--tls-ca-cert-file", str(made), "--tls-auth-clients", "no"
        )
    except AssertionError:
        pytest.skip("this redis-server was built without TLS")
    yield port
    server.stop()


def test_routers_hear_each_other_through_tls_that_they_check(
    tls_port: int, certificate: tuple[Path, Path]
) -> None:
    url = f"rediss://localhost:{tls_port}?ssl_ca_certs={certificate[1]}"
    one, two = pair(url)
    stranger = Fleet(URLS, "least_connections", replicas=f"rediss://localhost:{tls_port}")
    try:
        requests = [one.request().__enter__() for _ in range(3)]
        until(lambda: heard(two) == 3, "not heard through TLS")
        assert len(requests) == 3
        # Whoever knows no authority that signed the certificate trusts nobody, and routes alone.
        assert stranger.replicas is not None
        until(lambda: stranger.replicas.is_down, "a certificate of nobody was believed")
        assert heard(stranger) == 0
        assert stranger.request().__enter__().url in URLS
    finally:
        for fleet in (one, two, stranger):
            fleet.close()


def test_a_server_that_is_full_still_passes_messages_on(tmp_path: Path) -> None:
    """Nothing is kept there: publishing needs no room."""
    import redis

    server = Server(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
    one, two = pair(server.url)
    try:
        with (
            redis.Redis.from_url(server.url) as client,
            pytest.raises(redis.exceptions.OutOfMemoryError),
        ):
            client.set("key", "value")
        requests = [one.request().__enter__() for _ in range(3)]
        until(lambda: heard(two) == 3, "a full server stopped the messages")
        assert len(requests) == 3
    finally:
        one.close()
        two.close()
        server.stop()


def test_32_routers_of_1000_endpoints_know_each_others_load() -> None:
    """By bytes alone; no message is above what a channel takes, and all is gone with its router."""
    urls = [f"http://engine-{at}:8000" for at in range(1000)]
    tables = [_core.Table() for _ in range(32)]
    routers = []
    for at, table in enumerate(tables):
        for url in urls:
            table.add(url)
        routers.append(_core.Replicas(table, group="g", origin=at + 1, epoch=1))
        for number in range(at + 1):
            table.sent(urls[number * 7 % 1000], f"r{number}", 0.0)
    for now in (0.0, 1.0):
        said = [router.tell(now) for router in routers]
        for router in routers:
            for message in said:
                assert message is not None and len(message) < 1 << 20
                router.hear(message, now)
    requests = range(1, 33)
    for at, router in enumerate(routers):
        assert len(router.peers(1.0)) == 31
        assert sum(router.others(url)[0] for url in urls) == sum(requests) - (at + 1)
    routers[0].pass_time(10.0)
    assert sum(routers[0].others(url)[0] for url in urls) == 0
