"""Import paths of 0.1: each gives the module that now lies in a package."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

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


_INTEGRATIONS = {
    "engine_caches": "shared.engine_caches",
    "fleet": "shared.fleet",
    "litellm_calls": "litellm.calls",
    "litellm_outcome": "litellm.outcome",
    "litellm_request": "litellm.request",
    "production_stack.life": "production_stack.request_lifecycle",
    "production_stack.prompts": "shared.prompts",
    "ray_metrics": "shared.ray_telemetry",
    "ray_outcome": "ray_serve.outcome",
    "ray_prompt": "ray_serve.prompt",
    "retry_after": "shared.retry_after",
    "settings": "shared.settings",
    "shadow": "shared.shadow",
    "telemetry": "shared.telemetry",
}

IMPORTED_LATE = {
    f"routecore.integrations.{old}": f"routecore.integrations.{new}"
    for old, new in _INTEGRATIONS.items()
} | {
    "routecore.replay_args": "routecore.cli.replay_args",
    "routecore.replay_cli": "routecore.cli.replay",
    "routecore.replay_output": "routecore.cli.replay_output",
}
"""Path → path. What a host or an extra is needed for is imported once somebody asks."""


class _Renamed(MetaPathFinder, Loader):
    """Finds the module of today under its path of 0.1."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in IMPORTED_LATE else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(IMPORTED_LATE[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just set the spec of the old path: the module keeps its own.
        module.__spec__ = getattr(module.__spec__, "loader_state", module.__spec__)


def keep() -> None:
    """Let `import routecore.stats` and the others go on as before."""
    package = sys.modules["routecore"]
    for path, module in OLD_PATHS.items():
        sys.modules[path] = module
        setattr(package, path.partition(".")[2], module)
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        sys.meta_path.append(_Renamed())
