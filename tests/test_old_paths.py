"""Import paths that people have in their code and configuration keep working."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import routecore
from routecore.old_paths import IMPORTED_LATE

PATHS = {
    "routecore.health": ("HealthPolicy", "Standing"),
    "routecore.integrations.engine_caches": ("EngineCaches", "engine_caches"),
    "routecore.integrations.fleet": ("Fleet",),
    "routecore.integrations.litellm_calls": ("Calls",),
    "routecore.integrations.litellm_outcome": ("of_exception",),
    "routecore.integrations.litellm_request": ("body_of", "failed_before", "permitted"),
    "routecore.integrations.ray_prompt": ("body_of", "plain"),
    "routecore.integrations.retry_after": ("seconds_of",),
    "routecore.integrations.settings": ("Settings", "parameters"),
    "routecore.integrations.shadow": ("Record", "ShadowLog", "shadow_log", "summarise"),
    "routecore.integrations.telemetry": ("Telemetry", "watch"),
    "routecore.interface": ("RoutingInterface", "SingletonABCMeta"),
    "routecore.kv_events": ("KVEventSubscriber", "KVIndex", "KVSource", "PromptTokens"),
    "routecore.metrics": ("read_metrics",),
    "routecore.monitor": ("RequestStatsMonitor", "SingletonMeta"),
    "routecore.prefill_decode": ("PrefillDecodeRouter",),
    "routecore.replay_args": ("milliseconds", "numbers", "params", "strategy"),
    "routecore.replay_cli": ("replay",),
    "routecore.replay_output": ("needs",),
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


def test_an_old_path_is_the_module_of_today_and_no_copy() -> None:
    code = (
        "import importlib, sys\n"
        "import routecore.integrations.settings as old\n"
        "import routecore.integrations.shared.settings as new\n"
        "assert old is new and old.__spec__.name == new.__name__\n"
        "importlib.reload(new)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", IMPORTED_LATE)
def test_every_late_path_leads_to_a_file(path: str) -> None:
    """Looked for on the disk: a host that is missing here keeps its package from being imported."""
    file = Path(routecore.__file__).parents[1] / IMPORTED_LATE[path].replace(".", "/")
    assert file.with_suffix(".py").exists() or (file / "__init__.py").exists()


@pytest.mark.parametrize("host", ["litellm", "ray_serve"])
def test_a_host_that_is_missing_is_named_when_its_class_is_asked_for(host: str) -> None:
    """What reads its requests can be imported without it."""
    if importlib.util.find_spec({"ray_serve": "ray"}.get(host, host)):
        pytest.skip(f"{host} is installed here")
    code = (
        f"import routecore.integrations.{host} as package\n"
        "for name in (package.__all__[0], 'nothing'):\n"
        "    try:\n"
        "        getattr(package, name)\n"
        "    except (ImportError, AttributeError) as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    # In a process of its own: other tests put stand-ins in the host's place.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    missing, unknown = done.stdout.splitlines()
    assert missing.startswith("ImportError") and "pip install" in missing
    assert unknown.startswith("AttributeError") and "no attribute 'nothing'" in unknown
