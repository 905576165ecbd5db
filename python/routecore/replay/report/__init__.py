"""A replay as one HTML file: no network, no fonts or scripts from elsewhere, some 100 kB."""

from collections.abc import Sequence

from routecore.replay.report.figures import Figures
from routecore.replay.report.page import render
from routecore.replay.result import ReplayResult

__all__ = ["page"]


def page(results: Sequence[ReplayResult]) -> str:
    """The report of a replay.

    Args:
        results: Runs of the same trace and fleet: every strategy at every load with every seed,
            in the order of the seeds.

    Raises:
        ModuleNotFoundError: Without jinja2 (`routecore[report]`).
    """
    return render(Figures(results))
