"""Workers on one port route as one."""

import asyncio
import contextlib
import re
import signal
import sys
from typing import Any

import pytest

pytest.importorskip("zmq")

from ports import free_ports
from test_peers import avoid, hang
from test_server import process, ready
from world import Envoy, World, needs_envoy, run, world

pytestmark = needs_envoy


@pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT shares a port on Linux")
def test_workers_route_as_one() -> None:
    """Connections of the gateway's go to either worker; both know of all requests."""

    async def test() -> None:
        from routecore.integrations.envoy.bootstrap import bootstrap
        from routecore.integrations.envoy.settings import load

        async with world(8, start=False) as w:
            port, metrics, _ = free_ports(3)  # metrics take one for each worker
            given: dict[str, Any] = {
                "endpoints": ",".join(engine.address for engine in w.engines),
                "listen": f"127.0.0.1:{port}",
                "strategy": "least_connections",
                "workers": 2,
                "metrics_port": metrics,
            }
            words = [
                word
                for name, value in given.items()
                for word in (f"--{name.replace('_', '-')}", str(value))
            ]
            config = bootstrap(load(given, {}), port=0, address="127.0.0.1", admin=0)
            cluster = config["static_resources"]["clusters"][1]
            (options,) = cluster["typed_extension_protocol_options"].values()
            # Each request has a connection of its own, and so either worker.
            options["common_http_protocol_options"] = {"max_requests_per_connection": 1}
            envoy = Envoy(config)
            w.on_end(envoy.stop)
            async with process(*words) as made:
                await ready(made, port)
                await envoy.start(w.client)

                async def both_choose() -> bool:
                    async with w.client.get(envoy.url):
                        return all([await chosen(w, metrics + n) for n in range(2)])

                async with asyncio.timeout(30):
                    while not await both_choose():
                        await asyncio.sleep(0.02)
                for engine in w.engines:
                    engine.seen.clear()
                tasks, busy = await hang(w, envoy.url, 5)
                await avoid(w, envoy.url, busy)
                for engine in w.engines:
                    engine.let_go.set()
                assert [(await task).status for task in tasks] == [200] * 5
                made.send_signal(signal.SIGTERM)
                made.send_signal(signal.SIGTERM)
                async with asyncio.timeout(20):
                    assert await made.wait() == 0

    run(test())


async def chosen(w: World, port: int) -> float:
    """How often the worker with these metrics chose."""
    with contextlib.suppress(OSError):
        async with w.client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
        found = re.findall(r"^routecore_decisions_total\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))
    return 0.0
