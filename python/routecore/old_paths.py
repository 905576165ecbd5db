"""Import paths of 0.1: each gives the module that now lies in a package."""

import sys

from routecore.endpoints import health, metrics, monitor, scraper, stats, table, views
from routecore.routers import prefill_decode

OLD_PATHS = {
    "routecore.health": health,
    "routecore.metrics": metrics,
    "routecore.monitor": monitor,
    "routecore.prefill_decode": prefill_decode,
    "routecore.scraper": scraper,
    "routecore.stats": stats,
    "routecore.table": table,
    "routecore.views": views,
}
"""Path → module. Type checkers see the new paths only."""


def keep() -> None:
    """Let `import routecore.stats` and the others go on as before."""
    package = sys.modules["routecore"]
    for path, module in OLD_PATHS.items():
        sys.modules[path] = module
        setattr(package, path.partition(".")[2], module)
