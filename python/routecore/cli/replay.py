"""The command `routecore replay`: its options, and what they may not be together."""

import traceback
from pathlib import Path
from typing import Any

import click

from routecore.cli import replay_args as args
from routecore.cli.errors import bad
from routecore.cli.groups import GroupedCommand
from routecore.cli.numbers import Decimal, Whole
from routecore.cli.replay_output import Files
from routecore.cli.replay_plan import (
    Plan,
    beside_sharing,
    is_workload,
    run_all,
    search_parameters,
    source_of,
    traces,
)
from routecore.errors import RouteError

_FILE = click.Path(path_type=Path)


GROUPS = {
    "Fleet": (
        *("endpoints", "engine", "block_size", "kv_blocks", "token_budget", "max_sequences"),
        *("speeds", "routers", "share", "events", "stats_period_ms", "stats_delay_ms"),
    ),
    "Load": ("speedup", "seed", "seeds", "jitter", "requests", "rate", "burstiness"),
    "Strategies": ("words", "params", "hold", "baseline", "slo"),
    "Trace file": ("format_", "trace_block", "skip_bad"),
    "KV events": ("kv_events", "kv_event_delay"),
    "Output": ("verbose", "wide", "json_file", "report_file", "assignments"),
    "Tuning": ("tune", "trials", "objective"),
}
"""Heading of the help → names of its options."""


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    extra="unexpected {}: one TRACE at a time; lists take commas, as in --speedup 1,2,3 and "
    "--strategy a,b",
)
@click.argument("trace", required=False)
@click.option(
    "--strategy",
    "words",
    multiple=True,
    metavar="KEY[,KEY…]",
    help="Strategies to compare, repeated or with commas; default all. module:Class is a router of "
    "your own.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="Parameter of the one strategy given.",
)
@click.option("--endpoints", type=Whole(1, 65_536), default=8, show_default=True, help="Engines.")
@click.option(
    "--speedup",
    default="1",
    show_default=True,
    metavar="X[,X…]",
    help="Load: arrivals come X times as fast. Several values are a sweep.",
)
@click.option(
    "--engine",
    metavar="PROFILE",
    help="Step times of the engines; `routecore engines` lists all. Default dynamo-polynomial, "
    "without TRACE qwen3-32b-h100-tp2.",
)
@click.option(
    "--block-size",
    type=Whole(1, 1 << 20),
    default=64,
    show_default=True,
    help="Tokens of an engine's KV block.",
)
@click.option(
    "--kv-blocks",
    type=Whole(1, 1 << 30),
    help="KV blocks of an engine; default as the profile has.",
)
@click.option(
    "--token-budget",
    type=Whole(1, 1 << 30),
    default=8192,
    show_default=True,
    help="Tokens that an engine step computes at most.",
)
@click.option(
    "--max-sequences",
    type=Whole(1, 1 << 20),
    default=256,
    show_default=True,
    help="Requests that an engine runs at once at most.",
)
@click.option("--speeds", metavar="X,X…", help="A speed factor for each endpoint.")
@click.option(
    "--routers",
    type=Whole(1, 4096),
    default=1,
    show_default=True,
    help="Routers side by side; they share nothing without --share.",
)
@click.option(
    "--share",
    metavar="TIME[:loss=X]",
    help="They tell each other their load so often, as 200ms or 50ms:delay=5ms:loss=0.01; one "
    "router, and as many that do not share, are shown beside.",
)
@click.option(
    "--seed",
    type=Whole(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of every draw: the same seed gives the same figures.",
)
@click.option(
    "--seeds",
    type=Whole(1, 1000),
    help="Repetitions; from 5 on, significant gains are marked. Default 1, with --tune 5.",
)
@click.option(
    "--jitter",
    type=Decimal(0),
    metavar="MS",
    help="Shifts arrivals by up to MS; default 1500 with several seeds of a file, else 0.",
)
@click.option(
    "--stats-period",
    "stats_period_ms",
    type=Decimal(0),
    default=1000.0,
    show_default=True,
    metavar="MS",
    help="Between two scrapes of an engine's stats; 0 for never.",
)
@click.option(
    "--stats-delay",
    "stats_delay_ms",
    type=Decimal(0),
    default=0.0,
    show_default=True,
    metavar="MS",
    help="From a scrape until routers see it.",
)
@click.option(
    "--kv-events",
    is_flag=True,
    help="Cache strategies use the engines' KV events instead of their own history.",
)
@click.option(
    "--kv-event-delay",
    default="0ms",
    show_default=True,
    metavar="TIME",
    help="Delay until routers receive an event, as 50ms or 5s.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="fail@120s:3",
    help="An endpoint dies, joins (join@…), or answers with errors for a while (sick@120s:3:30s). "
    "Repeatable.",
)
@click.option(
    "--hold",
    is_flag=True,
    help="Requests wait at the router until the chosen endpoint has room in its KV cache.",
)
@click.option(
    "--format",
    "format_",
    metavar="NAME",
    help="Format of the trace: mooncake, azure, bailian, openai or shadow; default: by its first "
    "line.",
)
@click.option(
    "--trace-block",
    type=Whole(1, 1 << 20),
    help="Tokens that a hash id of a Mooncake trace stands for; default 512.",
)
@click.option("--skip-bad", is_flag=True, help="Skip bad lines and count them.")
@click.option("--requests", type=Whole(1, 10**8), help="Requests of a generated workload.")
@click.option("--rate", type=Decimal(1e-6, 1e6), help="Requests a second of a generated workload.")
@click.option(
    "--burstiness",
    type=Decimal(1e-6, 1e6),
    help="Burstiness of a generated workload; 1 is Poisson.",
)
@click.option(
    "--verbose", "-v", is_flag=True, help="The traceback of a router of your own that raises."
)
@click.option("--wide", is_flag=True, help="More columns than fit into 80.")
@click.option(
    "--json",
    "json_file",
    type=_FILE,
    is_flag=False,
    flag_value=Path("-"),
    metavar="[FILE]",
    help="Write results as JSON; without FILE to stdout, instead of tables.",
)
@click.option(
    "--baseline",
    metavar="KEY",
    help="Strategy that the others are compared with. Default: a router of your own, else "
    "round_robin.",
)
@click.option(
    "--slo",
    metavar="BOUNDS",
    help="Exit with 1 if a strategy named by --strategy (or else the best) exceeds them: "
    "ttft_p99=2s,e2e=20s.",
)
@click.option(
    "--report",
    "report_file",
    type=_FILE,
    metavar="FILE.html",
    help="Write an HTML page with all figures.",
)
@click.option(
    "--assignments",
    type=_FILE,
    metavar="FILE",
    help="With one strategy: an endpoint number a line, in trace order; with --hold also when it "
    "was sent there, ms.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Search the strategy's parameters on the first half of the trace; report the gain on the "
    "second.",
)
@click.option(
    "--trials", type=Whole(2, 100_000), help="Parameter sets that --tune tries; default 40."
)
@click.option(
    "--objective",
    metavar="NAME",
    help="What --tune makes small: blend (default: geometric mean of mean TTFT and mean E2E), "
    "ttft, e2e, goodput.",
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
    baseline: str | None,
    slo: str | None,
    wide: bool,
    verbose: bool,
    **fleet: Any,
) -> None:
    """Replay TRACE on modelled engines behind each strategy, and compare.

    \b
    routecore replay                                      a generated workload, all strategies
    routecore replay log.jsonl --speedup 1,2,3 --seeds 5 --report report.html
    routecore replay log.jsonl --strategy mymodule:MyRouter,expected_latency
    routecore replay log.jsonl --strategy expected_latency --slo ttft_p99=2s,e2e=20s

    TRACE is a file, or a generated workload: documents (the default), chat, agentic,
    mixed, short, burst, rl.
    """
    from routecore import ROUTERS
    from routecore.replay.slo import objectives

    try:
        if seeds is None:
            seeds = 5 if tune else 1
        names = [*dict.fromkeys(w.strip() for part in words for w in part.split(","))] or [*ROUTERS]
        names = [name if ":" in name else args.key(name, "--strategy") for name in names]
        plan = Plan(
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
        out.source = source_of(trace, seed, seeds) if report_file else None
        args.fleet(fleet, kv_events, kv_event_delay)
        plan.beside = {} if assignments else beside_sharing(fleet)
        drawn = {"requests": requests, "rate": rate, "burstiness": burstiness}
        drawn = {name: value for name, value in drawn.items() if value is not None}
        drawn_anew = is_workload(trace) and not tune
        if fleet["engine"] is None:
            fleet["engine"] = "dynamo-polynomial" if trace else "qwen3-32b-h100-tp2"
        if jitter is None:
            jitter = 1500.0 if seeds > 1 and not drawn_anew else 0.0
        fleet["jitter_ms"] = jitter
        drawn_traces = traces(trace, plan.seeds, drawn, format_, trace_block, skip_bad)
        search = {"trials": trials, "objective": objective}
        search = {name: value for name, value in search.items() if value is not None}
        if tune:
            if report_file or assignments or len(plan.loads) > 1:
                raise RouteError("--tune: leave out --report, --assignments and sweeps")
            search_parameters(plan, next(drawn_traces), search, fleet, out)
            return
        if search:
            raise RouteError(f"--{next(iter(search))} shapes a search: give --tune with it")
        if baseline is None:
            baseline = next((name for name in names if ":" in name), "round_robin")
        if not assignments and baseline not in names:
            plan.strategies[baseline] = args.strategy(baseline, "--baseline")
        bounds = objectives(slo) if slo else []
        results, skipped = run_all(plan, drawn_traces, fleet, shown=report_file is not None)
        asked = set(names) if words else None
        if not out.results(results, asked, skipped, baseline=baseline, bounds=bounds, wide=wide):
            raise click.exceptions.Exit(1)
    except RouteError as error:
        if verbose and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        bad(str(error))
