"""The port that gateways ask, under TLS; and health in plain text beside it, for kubelets."""

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from routecore.errors import RouteError
from routecore.integrations.envoy.settings import load
from world import needs_envoy, run, world

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate of 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    return made(openssl, tmp_path, "picker")


def made(openssl: str, folder: Path, name: str) -> tuple[str, str]:
    certificate, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    words += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    return certificate, key


async def ready(channel: Any) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="readiness")
    return bool((await stub.Check(request, timeout=10)).status == SERVING)


@needs_envoy
@pytest.mark.parametrize("checked", [False, True], ids=["", "checked by the gateway"])
def test_a_gateway_asks_over_tls(pair: tuple[str, str], checked: bool) -> None:
    certificate, key = pair

    def check(bootstrap: dict[str, Any]) -> None:
        picker = bootstrap["static_resources"]["clusters"][1]
        context = picker["transport_socket"]["typed_config"]["common_tls_context"]
        if checked:
            context["validation_context"] = {"trusted_ca": {"filename": certificate}}

    async def test() -> None:
        async with world(2, tls_certificate=certificate, tls_key=key, edit=check) as w:
            for size in (10, 300_000):
                assert (await w.post(b"x" * size)).status == 200
            await w.idle()
            where = f"127.0.0.1:{w.server.port}"
            trusted = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
            async with grpc.aio.secure_channel(where, trusted) as channel:
                assert await ready(channel)
            async with grpc.aio.insecure_channel(where) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await ready(channel)

    run(test())


def test_health_in_plain_text_on_a_port_of_its_own(pair: tuple[str, str]) -> None:
    """Kubernetes' gRPC probes speak no TLS."""

    async def test() -> None:
        given = {"tls_certificate": pair[0], "tls_key": pair[1], "health_port": 0}
        async with contextlib.AsyncExitStack() as stack:
            w = await stack.enter_async_context(world(1, start=False, **given))
            where = f"127.0.0.1:{w.server.health_port}"
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(where))
            assert await ready(channel)
            await w.server.health.set_ready(False)
            assert not await ready(channel)
            method = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
            process = channel.stream_stream(method)()
            await process.done_writing()
            assert await process.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test())


def test_what_is_no_certificate_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None
    certificate, key = pair
    _, other = made(openssl, tmp_path, "other")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for given, expected in (
        (("nowhere.crt", key), "tls_certificate 'nowhere.crt': No such file"),
        ((certificate, "nowhere.key"), "tls_key 'nowhere.key': No such file"),
        ((certificate, other), "not belong together"),
        ((str(empty), key), "expected PEM"),
        ((certificate, certificate), "expected PEM"),
        ((str(tmp_path), key), "Is a directory"),
    ):
        files = {"tls_certificate": given[0], "tls_key": given[1]}
        with pytest.raises(RouteError) as error:
            load({"endpoints": "10.0.0.1:80", **files}, {})
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
