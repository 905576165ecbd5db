"""The command `routecore demo`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from routecore.cli.errors import bad


@click.command()
@click.option("--endpoints", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=6.0,
    show_default=True,
    help="Wall-clock seconds of arrivals per strategy.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 10_000),
    default=16.0,
    show_default=True,
    help="Requests per simulated second.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 100),
    default=3.0,
    show_default=True,
    help="Simulated seconds per wall-clock second.",
)
@click.option("--strategy", "chosen", multiple=True, help="Repeat or comma list; default all.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--trace", type=click.Path(path_type=Path), help="Mooncake JSONL, may be .gz.")
@click.option("--requests", type=click.Path(path_type=Path), help="OpenAI bodies, JSONL.")
@click.option("--kv-events", is_flag=True, help="Engines tell of their caches; routers go by it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def demo(
    endpoints: int,
    seconds: float,
    rate: float,
    speed: float,
    chosen: tuple[str, ...],
    seed: int,
    trace: Path | None,
    requests: Path | None,
    kv_events: bool,
    as_json: bool,
) -> None:
    """Compare strategies live on a fleet of simulated engines."""
    from routecore import ROUTERS

    names = list(dict.fromkeys(n.strip() for part in chosen for n in part.split(","))) or [*ROUTERS]
    for name in names:
        if name not in ROUTERS:
            bad(f"--strategy: unknown {name!r}; valid: {', '.join(ROUTERS)}")
    if trace and requests:
        bad("--trace and --requests exclude each other")
    try:
        from rich.console import Console
        from rich.live import Live

        from routecore.demo import report, runner, traffic
    except ModuleNotFoundError as error:
        bad(f"the demo needs {error.name}: pip install 'routecore[demo]'")
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
    }
    if as_json:
        results = asyncio.run(runner.run(jobs, names, **settings))
        click.echo(
            json.dumps({**settings, "rate": rate, "results": [r.as_dict() for r in results]})
        )
        return
    title = f"{endpoints} simulated engines, {rate:g} requests/s, times in simulated ms"
    console = Console()
    with Live(report.table([], title), console=console, transient=True) as live:
        results = asyncio.run(
            runner.run(
                jobs,
                names,
                **settings,
                on_change=lambda now: live.update(report.table(now, title)),
            )
        )
    console.print(report.table(results, title))
