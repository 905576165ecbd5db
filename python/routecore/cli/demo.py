"""The command `routecore demo`: a replay drawn live, or with --live a fleet over HTTP."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from routecore.cli.demo_live import SECONDS
from routecore.cli.demo_live import live as send_live
from routecore.cli.errors import bad
from routecore.cli.files import write_whole
from routecore.cli.groups import Strict, typed
from routecore.cli.numbers import Decimal, Whole
from routecore.cli.replay_args import key
from routecore.errors import RouteError

if TYPE_CHECKING:
    from routecore.replay import ReplayResult

_ENGINE = "qwen3-32b-h100-tp2"
_WORKLOAD = "documents"
_SPEEDUP = 2.0
_LIVE_STRATEGIES = ("round_robin", "least_connections", "expected_latency")
_LIVE_ONLY = (
    *("seconds", "rate", "speed", "trace", "requests"),
    *("kv_events", "hold", "ranks", "envoy", "routers", "replicas", "kill", "sick"),
)


@click.command(
    cls=Strict,
    extra="unexpected {}: the demo brings its own requests; for a file of yours: routecore replay "
    "FILE; lists take commas, as in --strategy a,b",
)
@click.option("--endpoints", type=Whole(1, 256), default=8, show_default=True, help="Engines.")
@click.option("--strategy", "chosen", multiple=True, help="Repeat or comma list; default all.")
@click.option(
    "--seed",
    type=Whole(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the requests and of every draw: the same seed gives the same figures.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("routecore-demo.html"),
    show_default=True,
    help="The page to write.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option("--live", is_flag=True, help="Real HTTP: simulated engines, gateway and clients.")
@click.option(
    "--seconds",
    type=Decimal(0.1, 3600),
    default=SECONDS,
    show_default=True,
    help="Live: wall-clock seconds of arrivals per strategy.",
)
@click.option(
    "--rate",
    type=Decimal(0.01, 10_000),
    default=16.0,
    show_default=True,
    help="Live: requests per simulated second.",
)
@click.option(
    "--speed",
    type=Decimal(0.1, 100),
    default=3.0,
    show_default=True,
    help="Live: simulated seconds per wall-clock second.",
)
@click.option("--trace", type=click.Path(path_type=Path), help="Live: Mooncake JSONL, may be .gz.")
@click.option("--requests", type=click.Path(path_type=Path), help="Live: OpenAI bodies, JSONL.")
@click.option(
    "--kv-events", is_flag=True, help="Live: engines publish KV events, routers use them."
)
@click.option(
    "--hold", is_flag=True, help="Live: requests wait until the engine chosen for them has room."
)
@click.option(
    "--ranks",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Live: data-parallel ranks of an engine, each an endpoint of its own.",
)
@click.option(
    "--envoy", is_flag=True, help="Live: a real Envoy that asks `routecore picker` is the gateway."
)
@click.option(
    "--routers",
    type=Whole(1, 32),
    default=1,
    show_default=True,
    help="Live: gateways before the same engines; requests go to each in turn.",
)
@click.option(
    "--replicas",
    metavar="ADDRESS",
    help="Live: the routers share their load over redis://host:6379 or ipc:///folder.",
)
@click.option(
    "--kill",
    multiple=True,
    metavar="TIME:ENGINE[:DURATION]",
    help="Live: an engine refuses connections from a simulated time on, as 20s:3 or 20s:3:10s.",
)
@click.option(
    "--sick",
    multiple=True,
    metavar="TIME:ENGINE[:DURATION]",
    help="Live: an engine answers 500, as 20s:3:10s. Repeatable, as --kill.",
)
@click.pass_context
def demo(
    context: click.Context,
    /,
    endpoints: int,
    chosen: tuple[str, ...],
    seed: int,
    report: Path,
    as_json: bool,
    live: bool,
    **traffic: Any,
) -> None:
    """Compare the strategies on simulated engines, in some seconds.

    Replays 4,000 requests about shared documents on 8 simulated engines through every strategy,
    and ends with the best one and a page of figures. The options that say "Live" imply --live.
    """
    from routecore import ROUTERS

    def given(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    live = live or any(map(given, _LIVE_ONLY))
    if live and given("report"):
        bad("--report: the live fleet writes no page; leave out --live")
    names = list(dict.fromkeys(n.strip() for part in chosen for n in part.split(",")))
    for name in names:
        if ":" in name:
            bad(
                f"--strategy {name}: no router of your own here; routecore replay --strategy {name}"
            )
    try:
        names = [key(name, "--strategy") for name in names]
    except RouteError as error:
        bad(str(error))
    if live:
        if not given("seconds"):
            traffic["seconds"] = None
        send_live(names or [*_LIVE_STRATEGIES], endpoints, seed, as_json, **traffic)
    else:
        _replay(names or [*ROUTERS], endpoints, seed, report, as_json)


def _replay(names: list[str], endpoints: int, seed: int, report: Path, as_json: bool) -> None:
    """Replay the demo's traffic through each strategy; draw the ranked table as it grows."""
    from routecore.replay import generate, run
    from routecore.replay.result import SHOWN
    from routecore.replay.table import compare
    from routecore.replay.text import verdict

    trace = generate(_WORKLOAD, seed=seed)
    intro = (
        f"{len(trace):,} requests about shared documents (x{_SPEEDUP:g}) on {endpoints} simulated "
        f"{_ENGINE} engines. Same seed, same figures."
    )
    results: list[ReplayResult] = []
    with _drawing(wrap(intro, 80), len(names), quiet=as_json) as draw:
        for name in names:
            results.append(
                run(
                    trace,
                    strategy=name,
                    endpoints=endpoints,
                    engine=_ENGINE,
                    speedup=_SPEEDUP,
                    seed=seed,
                    decisions=SHOWN,
                )
            )
            draw(results)
    if as_json:
        click.echo(json.dumps({"seed": seed, "results": [r.as_dict() for r in results]}))
        return
    click.echo("\n" + "\n".join(wrap(verdict(compare(results)), 80)))
    click.echo(_page(results, report))
    click.echo(
        "Your own traffic: routecore replay --help      Over real HTTP: routecore demo --live"
    )


def _page(results: list["ReplayResult"], path: Path) -> str:
    """Write the page; say where it is, or why there is none."""
    try:
        from routecore.replay.report import Made, page
    except ModuleNotFoundError:
        return "For a page with all figures: pip install 'routecore[report]'"
    try:
        source = f"generated workload {_WORKLOAD}, drawn with seed {results[0].settings.seed}"
        write_whole(path, page(results, made=Made.now(typed(), source)))
    except OSError as error:
        return f"No page was written: {path}: {error.strerror}; name another with --report"
    return f"All figures and curves: {path}"


@contextmanager
def _drawing(
    intro: list[str], total: int, *, quiet: bool
) -> "Iterator[Callable[[list[ReplayResult]], None]]":
    """A table that grows in place on a terminal; elsewhere a line a strategy, then the table."""
    from routecore.replay.table import compare
    from routecore.replay.text import table

    def text(results: list["ReplayResult"]) -> list[str]:
        return list(table(compare(results)))

    if quiet:
        yield lambda results: None
        return
    if not sys.stdout.isatty():
        done: list[ReplayResult] = []

        def tell(results: list["ReplayResult"]) -> None:
            done[:] = results
            last = results[-1]
            click.echo(f"{len(results):2}/{total} {last.settings.strategy}")

        click.echo("\n".join(intro))
        yield tell
        click.echo("\n".join(text(done)))
        return
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ModuleNotFoundError as error:
        bad(f"the demo needs {error.name}: pip install 'routecore[demo]'")
    with Live(Text("\n".join(intro)), console=Console(), auto_refresh=False) as screen:

        def draw(results: list["ReplayResult"]) -> None:
            left = f"{len(results)} of {total} strategies" if len(results) < total else ""
            screen.update(Text("\n".join([*intro, "", *text(results), left])), refresh=True)

        yield draw
