"""What `routecore replay` runs: every strategy at every load with every seed, or a search."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from routecore.cli.replay_output import Files, needs
from routecore.errors import RouteError, unknown

if TYPE_CHECKING:
    from routecore.replay import ReplayResult, Trace


def is_workload(source: str | None) -> bool:
    """Whether TRACE names a generated workload (or nothing) instead of a file."""
    from routecore.replay import WORKLOADS

    return source is None or (source in WORKLOADS and not Path(source).exists())


def source_of(trace: str | None, seed: int, seeds: int) -> str | None:
    """What the trace is, for those who want to repeat a replay."""
    if trace is None or is_workload(trace):
        last = f" to {seed + seeds - 1}" if seeds > 1 else ""
        return f"generated workload {trace or 'documents'}, drawn with seed {seed}{last}"
    if not Path(trace).is_file():
        return None
    from routecore.replay.report.made import source_of as hashed

    return hashed(Path(trace))


def traces(
    source: str | None,
    seeds: list[int],
    drawn: dict[str, Any],
    format: str | None,
    block: int | None,
    skip_bad: bool,
) -> Iterator["Trace"]:
    """A trace for each seed: the file's, or a workload drawn anew."""
    from routecore.replay import generate, read_trace
    from routecore.replay.lines import BadLine

    if source is None or is_workload(source):
        given = {"--format": format, "--trace-block": block, "--skip-bad": skip_bad or None}
        for option, value in given.items():
            if value is not None:
                raise RouteError(f"{option} is about a trace file, and there is none")
        for seed in seeds:
            yield generate(source or "documents", seed=seed, **drawn)
        return
    if drawn:
        raise RouteError(f"--{next(iter(drawn))} shapes a generated workload, not a trace file")
    if not Path(source).exists():
        raise RouteError(f"{source}: No such file or directory{_meant(source)}")
    try:
        trace = read_trace(source, format, block=block, skip_bad=skip_bad)
    except BadLine as error:
        raise RouteError(f"{error} (--skip-bad leaves such lines out)") from None
    for _ in seeds:
        yield trace


def _meant(source: str) -> str:
    """What else the word for a trace may stand for."""
    from routecore import ROUTERS
    from routecore.replay import WORKLOADS

    if source.replace("-", "_") in ROUTERS:
        return f"; to replay this strategy alone: --strategy {source}"
    if "." in source or "/" in source:
        return ""
    return f", and no workload: unknown {unknown(source, WORKLOADS)}"


class Plan(msgspec.Struct):
    """What to replay: every strategy at every load with every seed; `params` are of `tuned`.

    `beside` are further runs of each strategy: what its label ends with, and settings that differ.
    """

    strategies: dict[str, Any]
    loads: list[float]
    seeds: list[int]
    params: dict[str, Any]
    tuned: str
    beside: dict[str, dict[str, Any]] = {}


def beside_sharing(fleet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Beside routers that share: one router alone, and as many that do not share."""
    if fleet["share"] is None:
        return {}
    apart = f", {fleet['routers']} apart"
    return {", 1 router": {"routers": 1, "share": None}, apart: {"share": None}}


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; call what it yields after each run."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=total, label="replaying", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def run_all(
    plan: Plan, traces: Iterator["Trace"], settings: dict[str, Any], *, shown: bool = False
) -> tuple[list["ReplayResult"], int]:
    """All runs of the plan, and the lines left out of the trace file.

    Args:
        plan: What to run.
        traces: A trace a seed.
        settings: Of every run.
        shown: Whether a page will show why requests went where they went.
    """
    from routecore.replay import run
    from routecore.replay.result import SHOWN

    results = []
    skipped = 0
    variants = {"": settings} | {end: settings | other for end, other in plan.beside.items()}
    total = len(plan.seeds) * len(plan.loads) * len(plan.strategies) * len(variants)
    with _progress(total) as step:
        for seed, trace in zip(plan.seeds, traces, strict=True):
            skipped = trace.skipped
            for load, name, end in product(plan.loads, plan.strategies, variants):
                results.append(
                    run(
                        trace,
                        strategy=plan.strategies[name],
                        label=name + end,
                        params=plan.params if name == plan.tuned else {},
                        speedup=load,
                        seed=seed,
                        decisions=SHOWN if shown and seed == plan.seeds[0] else 0,
                        **variants[end],
                    )
                )
                step()
    _tell(skipped)
    return results, skipped


def _tell(skipped: int) -> None:
    if skipped:
        click.echo(f"{skipped} bad lines left out", err=True)


def search_parameters(
    plan: Plan, trace: "Trace", search: dict[str, Any], settings: dict[str, Any], out: Files
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
