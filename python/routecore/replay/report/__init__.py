"""A replay as one HTML file: no network, no fonts or scripts from elsewhere, some 100 kB."""

from collections.abc import Sequence

from routecore.replay.report.figures import Figures
from routecore.replay.report.made import Made
from routecore.replay.report.page import render
from routecore.replay.result import ReplayResult
from routecore.replay.table import REFERENCE

__all__ = ["Made", "page"]


def page(
    results: Sequence[ReplayResult], baseline: str = REFERENCE, made: Made | None = None
) -> str:
    """The report of a replay.

    Args:
        results: Runs of the same trace and fleet: every strategy at every load with every seed,
            in the order of the seeds.
        baseline: Strategy that the others are compared with, as the results call it.
        made: The command and the trace, for those who want to repeat it.

    Raises:
        ModuleNotFoundError: Without jinja2 (`routecore[report]`).
    """
    return render(Figures(results, baseline), Made.now(None, None) if made is None else made)
