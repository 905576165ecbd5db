"""Endpoints of a name in DNS: every address of a headless Service is one."""

import asyncio
import logging
import socket

from routecore.integrations.envoy.endpoints.address import Address, of
from routecore.integrations.envoy.endpoints.file import Found
from routecore.integrations.shared.log_throttle import LogThrottle

_log = logging.getLogger("routecore.picker")
# The server answered that there is none, which is how a Service without ready pods looks.
_NONE = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


async def look_up(host: str, port: int) -> dict[Address, bool]:
    """All addresses of the name.

    Raises:
        OSError: DNS did not answer.
    """
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NONE:
            return {}
        raise
    ips = sorted({str(answer[4][0]).partition("%")[0] for answer in answers})
    return {of(ip, port): True for ip in ips}


async def watch(host: str, port: int, every: float, found: Found) -> None:
    """Look the name up every so many seconds. While DNS does not answer, nothing changes."""
    logs = LogThrottle()
    while True:
        try:
            found(await look_up(host, port))
        except OSError as error:
            if logs():
                _log.warning("DNS %s: %s; the endpoints stay as they were", host, error)
        await asyncio.sleep(every)
