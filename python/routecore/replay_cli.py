"""The command `routecore replay`: parses, runs, prints."""

import contextlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from routecore.errors import RouteError

if TYPE_CHECKING:
    from routecore.replay import ReplayResult, Trace

_FILE = click.Path(path_type=Path)


def _numbers(text: str, option: str, *, repeats: bool = False) -> list[float]:
    """A comma list of numbers."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise RouteError(f"{option}: expected numbers with commas between, got {text!r}") from None
    return found if repeats else list(dict.fromkeys(found))


def _milliseconds(text: str, option: str) -> float:
    """A time with its unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if not match:
        raise RouteError(f"{option}: expected a time as 50ms or 5s, got {text!r}")
    return float(match[1]) * (1e3 if match[2] == "s" else 1.0)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _params(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` as parameters; `weights.in_flight=1` sets one of several."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RouteError(f"--param: expected key=value, got {pair!r}")
        name, dot, inner = key.partition(".")
        if dot:
            group = found.setdefault(name, {})
            if not isinstance(group, dict):
                raise RouteError(f"--param: {name!r} is given both a value and parts of one")
            group[inner] = _number(value)
        else:
            found[name] = _number(value)
    return found


def _strategy(word: str) -> Any:
    """A strategy's word, or `module:Class` of a router in Python."""
    from routecore import ROUTERS

    module, colon, name = word.partition(":")
    if colon:
        sys.path.insert(0, "")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RouteError(f"--strategy {word}: {error}") from None
        finally:
            sys.path.remove("")
    if word not in ROUTERS:
        raise RouteError(f"--strategy: unknown {word!r}; valid: {', '.join(ROUTERS)}")
    return word


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
            yield generate(source or "chat", seed=seed, **drawn)
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
@click.option("--engine", default="dynamo-polynomial", show_default=True, metavar="PROFILE")
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
    default=1,
    show_default=True,
    help="Repeat with so many seeds; 5 and more tell gain from noise.",
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
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Figures; - for stdout.")
@click.option(
    "--assignments",
    type=_FILE,
    metavar="FILE",
    help="With one strategy: an endpoint number a line, in trace order.",
)
def replay(
    trace: str | None,
    words: tuple[str, ...],
    params: tuple[str, ...],
    speedup: str,
    seed: int,
    seeds: int,
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
    assignments: Path | None,
    **fleet: Any,
) -> None:
    """Replay TRACE on modelled engines behind each strategy, and compare.

    TRACE is a file, or a generated workload: chat (the default), agentic, documents.
    """
    from routecore import ROUTERS

    try:
        names = [*dict.fromkeys(w.strip() for part in words for w in part.split(","))] or [*ROUTERS]
        plan = _Plan(
            strategies={name: _strategy(name) for name in names},
            loads=_numbers(speedup, "--speedup"),
            seeds=[seed + at for at in range(seeds)],
            params=_params(params),
            tuned=names[0],
        )
        if (plan.params or assignments) and len(names) != 1:
            raise RouteError("--param and --assignments: give exactly one --strategy with them")
        if assignments and (len(plan.loads) > 1 or seeds > 1):
            raise RouteError("--assignments: give one --speedup and one seed with it")
        if not assignments and "round_robin" not in names:
            plan.strategies["round_robin"] = "round_robin"
        if fleet["speeds"]:
            fleet["speeds"] = _numbers(fleet["speeds"], "--speeds", repeats=True)
        delay = _milliseconds(kv_event_delay, "--kv-event-delay")
        fleet["kv_event_delay_ms"] = delay if kv_events else None
        if delay and not kv_events:
            raise RouteError("--kv-event-delay: give --kv-events with it")
        drawn = {"requests": requests, "rate": rate, "burstiness": burstiness}
        drawn = {name: value for name, value in drawn.items() if value is not None}
        traces = _traces(trace, plan.seeds, drawn, format_, trace_block, skip_bad)
        if jitter is None:
            jitter = 1500.0 if seeds > 1 and not _is_workload(trace) else 0.0
        results, skipped = _run(plan, traces, {**fleet, "jitter_ms": jitter})
        _show(results, set(names), skipped, json_file, assignments)
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
    return results, skipped


def _show(
    results: list["ReplayResult"],
    asked: set[str],
    skipped: int,
    json_file: Path | None,
    assignments: Path | None,
) -> None:
    from routecore.replay import table

    if skipped:
        click.echo(f"{skipped} bad lines left out", err=True)
    rows, knees = table.compare(results), table.knees(results)
    if assignments:
        numbers = results[0].per_request.endpoint.tolist()
        _write(assignments, "".join(f"{number}\n" for number in numbers), "--assignments")
    if json_file:
        figures = {
            "results": [r.as_dict() for r in results if r.settings.strategy in asked],
            "comparison": [row.as_dict() for row in rows],
            "knees": knees,
            "skipped_lines": skipped,
        }
        _write(json_file, json.dumps(figures, allow_nan=False, indent=1) + "\n", "--json")
    if Path("-") not in (json_file, assignments):
        for line in table.lines(rows, knees):
            click.echo(line)


def _write(path: Path, text: str, option: str) -> None:
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise RouteError(f"{option} {path}: {error.strerror or error}") from None
