"""The command `routecore replay`: parses, runs, prints."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from routecore.cli import replay_args as args
from routecore.cli.replay_output import Files, needs
from routecore.errors import RouteError

if TYPE_CHECKING:
    from routecore.replay import ReplayResult, Trace

_FILE = click.Path(path_type=Path)


def _is_workload(source: str | None) -> bool:
    from routecore.replay import WORKLOADS

    return source is None or (source in WORKLOADS and not Path(source).exists())


def _traces(
    source: str | None,
    seeds: list[int],
    drawn: dict[str, Any],
    format: str | None,
    block: int | None,
    skip_bad: bool,
) -> Iterator["Trace"]:
    """A trace for each seed: the file's, or a workload drawn anew."""
    from routecore.replay import generate, read_trace

    if source is None or _is_workload(source):
        for seed in seeds:
            yield generate(source or "documents", seed=seed, **drawn)
        return
    if drawn:
        raise RouteError(f"--{next(iter(drawn))} shapes a generated workload, not a trace file")
    trace = read_trace(source, format, block=block, skip_bad=skip_bad)
    for _ in seeds:
        yield trace


@click.command()
@click.argument("trace", required=False)
@click.option(
    "--strategy",
    "words",
    multiple=True,
    metavar="KEY[,KEY…]",
    help="Repeat or comma list; default all. module:Class is a router of your own.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="Parameter of the one strategy given.",
)
@click.option("--endpoints", type=int, default=8, show_default=True)
@click.option(
    "--speedup",
    default="1",
    show_default=True,
    metavar="X[,X…]",
    help="Divides arrival times; several are a sweep.",
)
@click.option(
    "--engine",
    metavar="PROFILE",
    help="Step times of the engines; a wrong name lists all. Default dynamo-polynomial, without "
    "TRACE qwen3-32b-h100-tp2.",
)
@click.option(
    "--block-size", type=int, default=64, show_default=True, help="Tokens of an engine's KV block."
)
@click.option("--kv-blocks", type=int, help="KV blocks of an engine; default as the profile has.")
@click.option("--token-budget", type=int, default=8192, show_default=True)
@click.option("--max-sequences", type=int, default=256, show_default=True)
@click.option("--speeds", metavar="X,X…", help="A speed factor for each endpoint.")
@click.option(
    "--routers",
    type=int,
    default=1,
    show_default=True,
    help="Routers that do not know of each other.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    help="Repeat with so many seeds; 5 and more tell gain from noise. Default 1, with --tune 5.",
)
@click.option(
    "--jitter",
    type=float,
    metavar="MS",
    help="Moves arrivals; default 1500 with several seeds of a file, else 0.",
)
@click.option(
    "--stats-period", "stats_period_ms", type=float, default=1000.0, show_default=True, metavar="MS"
)
@click.option(
    "--stats-delay", "stats_delay_ms", type=float, default=0.0, show_default=True, metavar="MS"
)
@click.option(
    "--kv-events", is_flag=True, help="Cache strategies go by the engines' KV events, not history."
)
@click.option(
    "--kv-event-delay",
    default="0ms",
    show_default=True,
    metavar="TIME",
    help="Until routers hear them, as 50ms or 5s.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="fail@120s:3",
    help="An endpoint dies, or joins (join@…).",
)
@click.option(
    "--format", "format_", metavar="NAME", help="mooncake, azure, bailian, openai; else guessed."
)
@click.option("--trace-block", type=int, help="Tokens of a hash id of the trace.")
@click.option("--skip-bad", is_flag=True, help="Count bad lines and go on.")
@click.option("--requests", type=int, help="Size of a generated workload.")
@click.option("--rate", type=float, help="Its requests a second.")
@click.option("--burstiness", type=float, help="Its variation of arrivals; 1 is Poisson.")
@click.option("--wide", is_flag=True, help="More columns than fit into 80.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Figures; - for stdout.")
@click.option("--report", "report_file", type=_FILE, metavar="FILE.html", help="A page to look at.")
@click.option(
    "--assignments",
    type=_FILE,
    metavar="FILE",
    help="With one strategy: an endpoint number a line, in trace order.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Search the one strategy's parameters on the first half; print the gain on the second.",
)
@click.option("--trials", type=click.IntRange(2, 100_000), help="Sets it tries; default 40.")
@click.option(
    "--objective",
    metavar="NAME",
    help="blend (the default: geometric mean of mean TTFT and mean E2E), ttft, e2e, goodput.",
)
def replay(
    trace: str | None,
    words: tuple[str, ...],
    params: tuple[str, ...],
    speedup: str,
    seed: int,
    seeds: int | None,
    jitter: float | None,
    kv_events: bool,
    kv_event_delay: str,
    format_: str | None,
    trace_block: int | None,
    skip_bad: bool,
    requests: int | None,
    rate: float | None,
    burstiness: float | None,
    json_file: Path | None,
    report_file: Path | None,
    assignments: Path | None,
    tune: bool,
    trials: int | None,
    objective: str | None,
    wide: bool,
    **fleet: Any,
) -> None:
    """Replay TRACE on modelled engines behind each strategy, and compare.

    TRACE is a file, or a generated workload: documents (the default), chat, agentic.
    """
    from routecore import ROUTERS

    try:
        if seeds is None:
            seeds = 5 if tune else 1
        names = [*dict.fromkeys(w.strip() for part in words for w in part.split(","))] or [*ROUTERS]
        plan = _Plan(
            strategies={name: args.strategy(name) for name in names},
            loads=args.numbers(speedup, "--speedup"),
            seeds=[seed + at for at in range(seeds)],
            params=args.params(params),
            tuned=names[0],
        )
        if (plan.params or assignments) and len(names) != 1:
            raise RouteError("--param and --assignments: give exactly one --strategy with them")
        if tune and len(names) != 1:
            raise RouteError("--tune: give exactly one --strategy with it")
        if assignments and (len(plan.loads) > 1 or seeds > 1):
            raise RouteError("--assignments: give one --speedup and one seed with it")
        out = Files(json_file, report_file, assignments)
        out.check()
        if fleet["speeds"]:
            fleet["speeds"] = args.numbers(fleet["speeds"], "--speeds", repeats=True)
        delay = args.milliseconds(kv_event_delay, "--kv-event-delay")
        fleet["kv_event_delay_ms"] = delay if kv_events else None
        if delay and not kv_events:
            raise RouteError("--kv-event-delay: give --kv-events with it")
        drawn = {"requests": requests, "rate": rate, "burstiness": burstiness}
        drawn = {name: value for name, value in drawn.items() if value is not None}
        drawn_anew = _is_workload(trace) and not tune
        if fleet["engine"] is None:
            fleet["engine"] = "dynamo-polynomial" if trace else "qwen3-32b-h100-tp2"
        if jitter is None:
            jitter = 1500.0 if seeds > 1 and not drawn_anew else 0.0
        fleet["jitter_ms"] = jitter
        traces = _traces(trace, plan.seeds, drawn, format_, trace_block, skip_bad)
        search = {"trials": trials, "objective": objective}
        search = {name: value for name, value in search.items() if value is not None}
        if tune:
            if report_file or assignments or len(plan.loads) > 1:
                raise RouteError("--tune: leave out --report, --assignments and sweeps")
            _tune(plan, next(traces), search, fleet, out)
            return
        if search:
            raise RouteError(f"--{next(iter(search))} shapes a search: give --tune with it")
        if not assignments and "round_robin" not in names:
            plan.strategies["round_robin"] = "round_robin"
        results, skipped = _run(plan, traces, fleet)
        out.results(results, set(names), skipped, wide=wide)
    except RouteError as error:
        raise click.UsageError(" ".join(str(error).split())) from None


class _Plan(msgspec.Struct):
    """What to replay: every strategy at every load with every seed; `params` are of `tuned`."""

    strategies: dict[str, Any]
    loads: list[float]
    seeds: list[int]
    params: dict[str, Any]
    tuned: str


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; call what it yields after each run."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=total, label="replaying", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _run(
    plan: _Plan, traces: Iterator["Trace"], settings: dict[str, Any]
) -> tuple[list["ReplayResult"], int]:
    """All runs of the plan, and the lines left out of the trace file."""
    from routecore.replay import run

    results = []
    skipped = 0
    total = len(plan.seeds) * len(plan.loads) * len(plan.strategies)
    with _progress(total) as step:
        for seed, trace in zip(plan.seeds, traces, strict=True):
            skipped = trace.skipped
            for load in plan.loads:
                for name, strategy in plan.strategies.items():
                    results.append(
                        run(
                            trace,
                            strategy=strategy,
                            label=name,
                            params=plan.params if name == plan.tuned else {},
                            speedup=load,
                            seed=seed,
                            **settings,
                        )
                    )
                    step()
    _tell(skipped)
    return results, skipped


def _tell(skipped: int) -> None:
    if skipped:
        click.echo(f"{skipped} bad lines left out", err=True)


def _tune(
    plan: _Plan, trace: "Trace", search: dict[str, Any], settings: dict[str, Any], out: Files
) -> None:
    """Search the parameters of the plan's strategy."""
    needs("optuna", "--tune", "tune")
    from routecore.replay.tune import TRIALS, tune

    if not isinstance(plan.strategies[plan.tuned], str):
        raise RouteError(f"--tune: {plan.tuned} is no compiled strategy, its parameters are yours")
    total = (search.get("trials", TRIALS) + 2) * len(plan.seeds)
    with _progress(total) as step:
        found = tune(
            trace,
            plan.tuned,
            fixed=plan.params,
            seed=plan.seeds[0],
            seeds=len(plan.seeds),
            speedup=plan.loads[0],
            progress=step,
            **search,
            **settings,
        )
    _tell(trace.skipped)
    out.tuned(found, trace.skipped)
