"""The `routecore` command."""

import asyncio
import inspect
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import click

from routecore.replay_cli import replay


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


main.add_command(replay)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")
def strategies(as_json: bool) -> None:
    """List the strategies: key, class, what it needs, parameters with defaults and units."""
    from routecore import prefill_decode
    from routecore.routers import ROUTERS, UNITS

    rows: list[dict[str, Any]] = []
    # The pair is no entry of ROUTERS: it needs a host that asks for both halves of a request.
    pair = prefill_decode.PrefillDecodeRouter
    listed: dict[str, Any] = {**ROUTERS, pair.strategy: pair}
    units = UNITS | prefill_decode.UNITS
    for key, cls in listed.items():
        given = list(inspect.signature(cls.__init__).parameters.values())[1:]
        parameters = {p.name: {"default": p.default, "unit": units[p.name]} for p in given}
        about = {"key": key, "class": cls.__name__, "needs": cls.needs}
        rows.append({**about, "parameters": parameters})
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['key']:18} {row['class']:26} needs {row['needs']}")
        for name, p in row["parameters"].items():
            click.echo(f"    {name + '=' + repr(p['default']):30} {p['unit']}")


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


@main.group("kv-events")
def kv_events() -> None:
    """KV-cache events of engines."""


@kv_events.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--replay", "replays", multiple=True, help="Replay address, per ADDRESS.")
@click.option("--metrics", "engines", multiple=True, help="Engine's HTTP address, per ADDRESS.")
@click.option("--ranks", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--topic", default="", help="Subscription; all by default.")
@click.option("--every", type=click.FloatRange(0.05, 3600), default=1.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.05), help="End by itself after so long.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array per interval.")
def tail(
    addresses: tuple[str, ...],
    replays: tuple[str, ...],
    engines: tuple[str, ...],
    ranks: int,
    topic: str,
    every: float,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Show live event streams: rates, losses, held blocks, and hits by the engines' metrics.

    ADDRESS: where an engine publishes, such as tcp://engine-1:5557.
    """
    from routecore import RouteError

    for name, given in (("--replay", replays), ("--metrics", engines)):
        if given and len(given) != len(addresses):
            _bad(f"{name}: expected one per address ({len(addresses)}), got {len(given)}")
    try:
        from rich.console import Console
        from rich.live import Live

        from routecore.kv_events import KVEventSubscriber, KVSource
        from routecore.kv_events.tail import Rates, table
    except ModuleNotFoundError as error:
        _bad(f"kv-events tail needs {error.name}: pip install 'routecore[demo]'")
    except ImportError as error:
        _bad(str(error))
    urls = engines or addresses
    try:
        subscriber = KVEventSubscriber(
            KVSource(url, address, replays[at] if replays else None, ranks, topic)
            for at, (url, address) in enumerate(zip(urls, addresses, strict=True))
        )
    except RouteError as error:
        _bad(str(error))
    rates = Rates(subscriber, {url: url for url in engines})
    end = None if seconds is None else time.monotonic() + seconds
    try:
        with Live(console=Console(), auto_refresh=False) if not as_json else nullcontext() as live:
            while end is None or time.monotonic() < end:
                time.sleep(every)
                rows = rates.rows()
                if live is None:
                    click.echo(json.dumps(rows))
                else:
                    live.update(table(rows), refresh=True)
    except KeyboardInterrupt:
        pass
    finally:
        subscriber.close()


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
