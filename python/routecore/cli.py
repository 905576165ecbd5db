"""The `routecore` command."""

import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click


class _OneLine(click.Group):
    """Bad input gives one line and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.Abort:
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"error: {error.format_message()}", err=True)
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


def _bad(reason: str) -> NoReturn:
    raise click.UsageError(" ".join(reason.split()))


@click.group(cls=_OneLine)
def main() -> None:
    """Routing strategies for LLM routers."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")
def strategies(as_json: bool) -> None:
    """List the strategies: key, class, parameters with their defaults."""
    from routecore import ROUTERS

    rows: list[tuple[str, str, dict[str, Any]]] = []
    for key, cls in ROUTERS.items():
        given = list(inspect.signature(cls.__init__).parameters.values())[1:]
        rows.append((key, cls.__name__, {p.name: p.default for p in given}))
    if as_json:
        names = ("key", "class", "parameters")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    click.echo(f"{'key':18} {'class':23} parameters")
    for key, name, parameters in rows:
        shown = ", ".join(f"{p}={value!r}" for p, value in parameters.items())
        click.echo(f"{key:18} {name:23} {shown}")


@main.command()
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
    as_json: bool,
) -> None:
    """Compare strategies live on a fleet of simulated engines."""
    from routecore import ROUTERS

    names = list(dict.fromkeys(n.strip() for part in chosen for n in part.split(","))) or [*ROUTERS]
    for name in names:
        if name not in ROUTERS:
            _bad(f"--strategy: unknown {name!r}; valid: {', '.join(ROUTERS)}")
    if trace and requests:
        _bad("--trace and --requests exclude each other")
    try:
        from rich.console import Console
        from rich.live import Live

        from routecore.demo import report, runner, traffic
    except ModuleNotFoundError as error:
        _bad(f"the demo needs {error.name}: pip install 'routecore[demo]'")
    arrivals: dict[str, Any] = {"rate": rate, "seconds": seconds * speed, "seed": seed}
    try:
        if trace:
            jobs = traffic.trace(trace, **arrivals)
        elif requests:
            jobs = traffic.requests(requests, **arrivals)
        else:
            jobs = traffic.conversations(**arrivals)
    except ValueError as error:
        _bad(str(error))
    settings: dict[str, Any] = {
        "endpoints": endpoints,
        "seconds": seconds,
        "speed": speed,
        "seed": seed,
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


@main.command("shadow-report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def shadow_report(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what would have differed, from the records of shadow mode."""
    import msgspec

    from routecore.integrations.shadow import summarise

    try:
        summary = summarise(files)
    except (OSError, ValueError) as error:
        _bad(f"{', '.join(map(str, files))}: {getattr(error, 'strerror', None) or error}")
    if as_json:
        click.echo(msgspec.json.encode(summary).decode())
        return
    click.echo(f"requests            {summary.requests} ({summary.skipped} lines skipped)")
    click.echo(f"strategy            {summary.strategy}")
    click.echo(f"agreement           {summary.agreement:.1%}")
    click.echo(f"{'':20}{'host':>10} {'ours':>10}")
    pairs = (
        ("predicted hit tokens", summary.hit_rate, "{:.1%}"),
        ("busiest endpoint", summary.busiest_share, "{:.1%}"),
        ("predicted latency", summary.latency_ms, "{:.1f} ms"),
    )
    for name, sides, form in pairs:
        host, ours = (
            "-" if sides[who] is None else form.format(sides[who]) for who in ("host", "ours")
        )
        click.echo(f"{name:20}{host:>10} {ours:>10}")
