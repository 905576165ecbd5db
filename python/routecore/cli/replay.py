"""The command `routecore replay`: its options, and what they may not be together."""

from pathlib import Path
from typing import Any

import click

from routecore.cli import replay_args as args
from routecore.cli.groups import GroupedCommand
from routecore.cli.replay_output import Files
from routecore.cli.replay_plan import Plan, is_workload, run_all, search_parameters, traces
from routecore.errors import RouteError

_FILE = click.Path(path_type=Path)


GROUPS = {
    "Fleet": (
        *("endpoints", "engine", "block_size", "kv_blocks", "token_budget", "max_sequences"),
        *("speeds", "routers", "events", "stats_period_ms", "stats_delay_ms"),
    ),
    "Load": ("speedup", "seed", "seeds", "jitter", "requests", "rate", "burstiness"),
    "Strategies": ("words", "params", "hold", "baseline", "slo"),
    "Trace file": ("format_", "trace_block", "skip_bad"),
    "KV events": ("kv_events", "kv_event_delay"),
    "Output": ("wide", "json_file", "report_file", "assignments"),
    "Tuning": ("tune", "trials", "objective"),
}
"""Heading of the help → names of its options."""


@click.command(cls=GroupedCommand, groups=GROUPS)
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
    help="An endpoint dies, joins (join@…), or answers with errors for a while (sick@120s:3:30s).",
)
@click.option(
    "--hold",
    is_flag=True,
    help="Requests wait at the router until the endpoint chosen has room in its KV cache.",
)
@click.option(
    "--format",
    "format_",
    metavar="NAME",
    help="mooncake, azure, bailian, openai, shadow; else guessed.",
)
@click.option("--trace-block", type=int, help="Tokens of a hash id of the trace.")
@click.option("--skip-bad", is_flag=True, help="Count bad lines and go on.")
@click.option("--requests", type=int, help="Size of a generated workload.")
@click.option("--rate", type=float, help="Its requests a second.")
@click.option("--burstiness", type=float, help="Its variation of arrivals; 1 is Poisson.")
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
@click.option("--report", "report_file", type=_FILE, metavar="FILE.html", help="A page to look at.")
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
    baseline: str | None,
    slo: str | None,
    wide: bool,
    **fleet: Any,
) -> None:
    """Replay TRACE on modelled engines behind each strategy, and compare.

    \b
    routecore replay                                      a generated workload, all strategies
    routecore replay log.jsonl --speedup 1,2,3 --seeds 5 --report report.html
    routecore replay log.jsonl --strategy mymodule:MyRouter,expected_latency
    routecore replay log.jsonl --strategy expected_latency --slo ttft_p99=2s,e2e=20s

    TRACE is a file, or a generated workload: documents (the default), chat, agentic,
    mixed, short, burst.
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
        if fleet["speeds"]:
            fleet["speeds"] = args.numbers(fleet["speeds"], "--speeds", repeats=True)
        delay = args.milliseconds(kv_event_delay, "--kv-event-delay")
        fleet["kv_event_delay_ms"] = delay if kv_events else None
        if delay and not kv_events:
            raise RouteError("--kv-event-delay: give --kv-events with it")
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
        results, skipped = run_all(plan, drawn_traces, fleet)
        asked = set(names) if words else None
        if not out.results(results, asked, skipped, baseline=baseline, bounds=bounds, wide=wide):
            raise click.exceptions.Exit(1)
    except RouteError as error:
        raise click.UsageError(" ".join(str(error).split())) from None
