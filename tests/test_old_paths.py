"""Import paths that people have in their code and configuration keep working."""

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "routecore.health": ("HealthPolicy", "Standing"),
    "routecore.interface": ("RoutingInterface", "SingletonABCMeta"),
    "routecore.kv_events": ("KVEventSubscriber", "KVIndex", "KVSource", "PromptTokens"),
    "routecore.metrics": ("read_metrics",),
    "routecore.monitor": ("RequestStatsMonitor", "SingletonMeta"),
    "routecore.prefill_decode": ("PrefillDecodeRouter",),
    "routecore.replay": ("compare", "generate", "run"),
    "routecore.routers": ("ROUTERS", "LeastConnectionsRouter"),
    "routecore.scraper": ("EngineStatsScraper",),
    "routecore.stats": ("EndpointInfo", "EngineStats", "RequestStats"),
    "routecore.table": ("EndpointTable", "default_table"),
    "routecore.views": ("RequestStatsView",),
}


@pytest.mark.parametrize("path", PATHS)
def test_what_was_importable_still_is(path: str) -> None:
    module = importlib.import_module(path)
    for name in PATHS[path]:
        assert hasattr(module, name), name


def test_an_old_path_gives_the_class_of_the_new_one() -> None:
    """Also where nothing else of the package was imported before, and as an attribute."""
    code = (
        "import routecore.monitor\n"
        "from routecore.stats import EndpointInfo\n"
        "import routecore\n"
        "assert routecore.monitor.RequestStatsMonitor is routecore.RequestStatsMonitor\n"
        "assert EndpointInfo is routecore.EndpointInfo\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
