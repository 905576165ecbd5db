"""Endpoints of files and of DNS, and the pool that they make."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from routecore.errors import RouteError
from routecore.integrations.envoy.endpoints import dns, file
from routecore.integrations.envoy.endpoints.address import read
from routecore.integrations.envoy.endpoints.pool import Pool
from world import run, until


@contextlib.asynccontextmanager
async def following(watch: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(watch)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def pool() -> tuple[Pool, list[str]]:
    gone: list[str] = []
    return Pool(gone.append), gone


def urls(found: Pool) -> list[str]:
    return [endpoint.url for endpoint in found.ready]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "endpoints:\n- 10.0.0.1:80\n- {address: '10.0.0.2:80', ready: false}\n"),
        ("b.yml", "['10.0.0.1:80', {address: '10.0.0.2:80', ready: false}]"),
        ("c.json", '{"endpoints": ["10.0.0.1:80", {"address": "10.0.0.2:80", "ready": false}]}'),
    ],
)
def test_a_file_s_forms(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert file.load(path) == {read("10.0.0.1:80"): True, read("10.0.0.2:80"): False}


@pytest.mark.parametrize(
    "text", ["", "{", "endpoints: 3", "[a b]", "endpoints: [{adress: '10.0.0.1:80'}]", "- - -" * 9]
)
def test_a_file_that_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(RouteError):
        file.load(path)


def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file, "_EVERY", 0.01)
    path = tmp_path / "fleet.yaml"
    path.write_text("[10.0.0.1:80, 10.0.0.2:80]")

    async def test() -> None:
        found, gone = pool()
        async with following(file.watch(path, found.update)):
            await until(lambda: len(found.ready) == 2)
            path.write_text("[10.0.0.2:80, 10.0.0.3:80, 10.0.0.4:80]")
            await until(lambda: len(found.ready) == 3)
            assert gone == ["http://10.0.0.1:80"]
            path.write_text("[")  # half of it is written
            await until(lambda: "stay as they were" in caplog.text)
            assert len(found.ready) == 3
            other = tmp_path / "other"  # as editors and ConfigMaps exchange files
            other.write_text("[10.0.0.9:80]")
            os.replace(other, path)
            await until(lambda: urls(found) == ["http://10.0.0.9:80"])
            path.unlink()
            await asyncio.sleep(0.05)
            assert urls(found) == ["http://10.0.0.9:80"]

    run(test())


def test_a_name_s_addresses_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        ["10.0.0.1", "10.0.0.2", "10.0.0.1"],
        socket.gaierror(socket.EAI_AGAIN, "the server does not answer"),
        ["10.0.0.2", "fd00::1"],
        socket.gaierror(socket.EAI_NONAME, "there is none"),
        ["10.0.0.5"],
    ]
    seen: list[list[str]] = []

    async def test() -> None:
        async def getaddrinfo(_host: str, port: int, **_: Any) -> Any:
            seen.append(urls(found))
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        found, gone = pool()
        async with following(dns.watch("engines", 80, 0.001, found.update)):
            await until(lambda: len(seen) > 6)
        one, two, six = "http://10.0.0.1:80", "http://10.0.0.2:80", "http://[fd00::1]:80"
        assert seen[:6] == [[], [one, two], [one, two], [two, six], [], ["http://10.0.0.5:80"]]
        assert gone == [one, two, six]

    run(test())


def test_a_name_that_is_there() -> None:
    async def test() -> None:
        found = await dns.look_up("localhost", 80)
        assert read("127.0.0.1:80") in found or read("[::1]:80") in found

    run(test())


def test_a_subset_names_endpoints_or_hosts() -> None:
    found, _ = pool()
    addresses = [read(f"10.0.0.{n}:800{m}") for n in (1, 2) for m in (0, 1)]
    found.update(dict.fromkeys(addresses, True))
    assert found.candidates(None) is found.ready
    hint = ("10.0.0.1:8001", "10.0.0.2:8000", "10.9.9.9:1")
    assert [e.url[-6:] for e in found.candidates(hint)] == ["1:8001", "2:8000"]
    assert found.candidates(hint) is found.candidates(tuple(hint))  # routers know it by identity
    assert len(found.candidates(("10.0.0.1",))) == 2
    assert found.candidates(()) == ()
    found.update({addresses[0]: True, addresses[1]: False})
    assert found.candidates(hint) == ()
    for n in range(100):  # as many as clients can make a gateway ask for
        found.candidates((f"10.0.0.1:{n + 1}",))
    assert len(found._subsets) <= 32


def test_endpoints_that_stay_are_the_same_objects() -> None:
    found, gone = pool()
    one, two = read("10.0.0.1:80"), read("10.0.0.2:80")
    found.update({one: True})
    before = found.ready
    found.update({one: True})
    assert found.ready is before
    found.update({one: True, two: True})
    assert found.ready[0] is before[0]
    assert gone == []
