"""A real Ray on this machine, and its Serve, for the tests of a module."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

# Read at the import of Serve: how long it waits for its own processes, slow where much else runs.
os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "120"
os.environ["RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"] = "120"
_ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """Ray, whose workers find what the tests import."""
    import ray

    folders = [str(_ROOT / name) for name in ("python", "tests", "tests/integrations")]
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(folders)}},
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def local_serve(port: int) -> Iterator[None]:
    """Ray with Serve, whose proxy listens on that port."""
    from ray import serve

    # Serve gives its proxies a minute to begin, which is not enough where much else runs.
    importlib.import_module("ray.serve._private.api").HTTP_PROXY_TIMEOUT = 600
    with local_ray():
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        try:
            yield
        finally:
            serve.shutdown()
