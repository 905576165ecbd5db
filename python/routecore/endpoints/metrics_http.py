"""One engine's metrics over HTTP: fetched within bounds, and read without holding up the others."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from routecore.endpoints.metrics import Reading, read_in_steps
from routecore.errors import RouteError

if TYPE_CHECKING:
    import asyncio
    import logging
    import ssl

    import httpx

MAX_OPEN = 256
"""Connections at a time."""
_MAX_BYTES = 2 * 1024 * 1024  # of one answer: far above any engine's, and a bound
# Seconds of computing that the reading of one answer may take, far above any engine's, and what
# of it is done before the other answers get a turn.
_READ_SECONDS, _TURN_SECONDS = 0.25, 0.005
# What the first request and the first name of a host import.
_IMPORTS = (
    *("h11", "anyio", "anyio._backends._asyncio", "httpcore._backends.anyio"),
    *("concurrent.futures.thread", "encodings.idna", "prometheus_client.parser"),
)


class MetricsHttp:
    """How engines are asked for their metrics.

    Args:
        path: Where they serve them.
        headers: Sent with every request.
        verify: Whether certificates are checked, or the path of a CA file to trust.
        timeout: Seconds after which an answer is given up.

    Raises:
        RouteError: The CA file cannot be read.
    """

    def __init__(
        self, path: str, headers: Mapping[str, str], verify: bool | str, timeout: float
    ) -> None:
        self._path, self._headers = "/" + path.lstrip("/"), dict(headers)
        self._verify, self._timeout = _trusting(verify), timeout

    def client(self) -> "httpx.AsyncClient":
        """A client, to be closed by the caller. With it, all is imported that requests need.

        Make it before the thread that uses it: a fork amid an import of that thread leaves half a
        module to the child.
        """
        import logging

        import httpx

        for name in _IMPORTS:
            with suppress(ImportError):
                import_module(name)
        # Its line per request, at INFO, would fill the host's log at every scrape.
        logging.getLogger("httpx").addFilter(_not_ours)
        # Engines are near; a proxy in the environment is for elsewhere. `fetch` keeps the time.
        return httpx.AsyncClient(
            timeout=None,
            limits=httpx.Limits(max_connections=MAX_OPEN),
            trust_env=False,
            headers={**self._headers, "Accept-Encoding": "identity"},
            verify=self._verify,
        )

    async def fetch(self, client: "httpx.AsyncClient", url: str) -> str:
        """The text of the engine's metrics.

        Raises:
            Exception: It was refused, too slow, too long, packed, or not answered with 200.
        """
        import asyncio

        async with asyncio.timeout(self._timeout):
            body = bytearray()
            async with client.stream("GET", url.rstrip("/") + self._path) as response:
                response.raise_for_status()
                coding = response.headers.get("content-encoding", "identity")
                if coding.strip().lower() != "identity":
                    # Not asked for; and a few bytes may unpack to more than there is memory.
                    raise ValueError(f"content encoding {coding}")
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > _MAX_BYTES:
                        raise ValueError("answer too long")
        return body.decode(errors="replace")


async def read(
    text: str, turn: "asyncio.Lock", ranks: Sequence[int | None] = (None,)
) -> list[Reading | None]:
    """Read an answer in turns with the others, in between which sockets are served.

    Args:
        text: The answer.
        turn: Whose turn it is.
        ranks: Data-parallel ranks to read the figures of; None for all together.

    Returns:
        A reading for each, or None where nothing is reported of that rank.

    Raises:
        ValueError: It takes too long.
    """
    import asyncio

    steps, spent = read_in_steps(text, ranks), 0.0
    while True:
        async with turn:
            start = time.thread_time()
            while time.thread_time() - start < _TURN_SECONDS:
                try:
                    next(steps)
                except StopIteration as end:
                    readings: list[Reading | None] = end.value
                    return readings
            spent += time.thread_time() - start
            if spent > _READ_SECONDS:
                raise ValueError(f"not read within {_READ_SECONDS} s")
            await asyncio.sleep(0)


def _trusting(verify: bool | str) -> "bool | ssl.SSLContext":
    if not isinstance(verify, str):
        return verify
    import ssl

    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:  # ssl.SSLError is one too
        raise RouteError(f"verify: CA file {verify!r}: {error}") from None


def _not_ours(record: "logging.LogRecord") -> bool:
    return not (record.threadName or "").startswith("routecore-scraper")
