"""What `routecore replay` hands out: text on the terminal, and the files that were asked for."""

import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click
import msgspec

from routecore.cli.files import check_writable, write_whole
from routecore.cli.groups import typed
from routecore.errors import RouteError

if TYPE_CHECKING:
    from routecore.replay import ReplayResult
    from routecore.replay.slo import Objective
    from routecore.replay.tune import Tuned


def needs(module: str, option: str, extra: str) -> None:
    """Refuse an option whose library is not installed.

    Raises:
        RouteError: Names the extra to install.
    """
    if importlib.util.find_spec(module) is None:
        raise RouteError(f"{option} needs {module}: pip install 'routecore[{extra}]'")


def _waits(results: Sequence["ReplayResult"]) -> Iterable[str]:
    """How long requests waited at the router, which their TTFT has in it, and how many did."""
    yield "waited at the router (in TTFT)  load  seed  mean ms    p99 ms   longest  most at once"
    for result in results:
        waits = result.per_request.wait_ms
        longest = float(max((wait for wait in waits.tolist() if wait == wait), default=0.0))
        _, queue = result.per_request.queue(1_000)
        yield (
            f"{result.settings.strategy:30}  {result.settings.speedup:>4g}  "
            f"{result.settings.seed:>4}  {result.wait_ms.mean:>7.0f}  {result.wait_ms.p99:>8.0f}  "
            f"{longest:>8.0f}  {int(queue.max()):>12}"
        )


class Files(msgspec.Struct):
    """Where results go beside the terminal; "-" is the terminal. `source`: what the trace was."""

    json: Path | None
    report: Path | None
    assignments: Path | None
    source: str | None = None

    def _asked(self) -> dict[str, Path]:
        each = {f"--{name}": getattr(self, name) for name in ("json", "report", "assignments")}
        return {option: path for option, path in each.items() if path is not None}

    def check(self) -> None:
        """Refuse what cannot be written before minutes are spent on it."""
        asked = self._asked()
        for option, path in asked.items():
            if path != Path("-"):
                try:
                    check_writable(path)
                except OSError as error:
                    raise RouteError(f"{option} {path}: {error.strerror or error}") from None
        if list(asked.values()).count(Path("-")) > 1:
            raise RouteError(f"{' and '.join(asked)}: only one of them can be -")
        if self.report:
            needs("jinja2", "--report", "report")

    def _say(self, lines: Iterable[str]) -> None:
        if Path("-") not in self._asked().values():
            for line in lines:
                click.echo(line)

    def results(
        self,
        results: list["ReplayResult"],
        asked: set[str] | None,
        skipped: int,
        *,
        baseline: str,
        bounds: Sequence["Objective"] = (),
        wide: bool = False,
    ) -> bool:
        """Hand out a comparison.

        Args:
            results: All runs.
            asked: The strategies that the user named; None for all.
            skipped: Lines left out of the trace file.
            baseline: The strategy that the others are compared with.
            bounds: Objectives that those who were asked for, or else the best, must meet.
            wide: Print more columns than fit into 80.

        Returns:
            Whether the objectives are met.
        """
        from routecore.replay import slo, table, text

        rows, knees = table.compare(results, baseline), table.knees(results)
        # Before the files: a disk that is full by now must not cost what took minutes.
        self._say(text.lines(rows, knees, results[0].settings, baseline=baseline, wide=wide))
        if any(result.settings.hold for result in results):
            self._say(("", *_waits(results)))
        if self.assignments:
            each = results[0].per_request
            lines = [f"{at}\n" for at in each.endpoint.tolist()]
            if results[0].settings.hold:
                sent = zip(each.endpoint.tolist(), each.dispatch_ms.tolist(), strict=True)
                lines = [f"{at} {when:.3f}\n" for at, when in sent]
            _write(self.assignments, "".join(lines), "--assignments")
        loads = list(dict.fromkeys(row.speedup for row in rows))
        # Those that were run beside a strategy that shares are shown, not judged.
        plain = [row for row in rows if ", " not in row.strategy]
        here = {load: [row for row in plain if row.speedup == load] for load in loads}
        judged = [row for row in rows if asked is None or row.strategy in asked]
        if asked is None:
            judged = [table.ranked(here[load])[0] for load in loads]
        missed = list(slo.misses(judged, bounds)) if bounds else []
        if self.json:
            figures = {
                "results": [
                    result.as_dict()
                    for result in results
                    if asked is None or result.settings.strategy.partition(", ")[0] in asked
                ],
                "comparison": [row.as_dict() for row in rows],
                "knees": knees,
                "skipped_lines": skipped,
                "missed": missed,
            }
            _write(self.json, _json(figures), "--json")
        if self.report:
            from routecore.replay.report import Made, page

            made = Made.now(typed(), self.source)
            _write(self.report, page(results, baseline, made), "--report")
        verdict = text.verdict(here[1.0 if 1.0 in here else max(here)], baseline)
        self._say(wrap(verdict, 80))
        for line in missed:
            click.echo(line, err=True)
        return not missed

    def tuned(self, found: "Tuned", skipped: int) -> None:
        """Hand out what a search found."""
        from routecore.replay.tune import lines

        self._say(lines(found))
        if self.json:
            _write(self.json, _json({**found.as_dict(), "skipped_lines": skipped}), "--json")


def _json(figures: dict[str, Any]) -> str:
    return json.dumps(figures, allow_nan=False, indent=1) + "\n"


def _write(path: Path, text: str, option: str) -> None:
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    try:
        write_whole(path, text)
    except OSError as error:
        raise RouteError(f"{option} {path}: {error.strerror or error}") from None
