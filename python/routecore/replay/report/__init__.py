"""A replay as one HTML file: no network, no fonts or scripts from elsewhere, some 100 kB."""

from collections.abc import Sequence

from routecore.replay.report.figures import Figures
from routecore.replay.report.page import render
from routecore.replay.result import ReplayResult
from routecore.replay.table import REFERENCE

__all__ = ["page"]


def page(results: Sequence[ReplayResult], baseline: str = REFERENCE) -> str:
    """The report of a replay.

    Args:
        results: Runs of the same trace and fleet: every strategy at every load with every seed,
            in the order of the seeds.
        baseline: Strategy that the others are compared with, as the results call it.

    Raises:
        ModuleNotFoundError: Without jinja2 (`routecore[report]`).
    """
    return render(Figures(results, baseline))
