"""Real engines for the tests marked `engines`; without vLLM all of them are skipped."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_server import TEMPLATES, Engine

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def engines_python() -> str:
    """Python of the environment that has vLLM."""
    python = os.environ.get("ROUTECORE_ENGINES_PYTHON")
    if python is None:
        pytest.skip("needs vLLM: make test-engines")
    return python


@pytest.fixture(scope="session")
def model(engines_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights."""
    folder = tmp_path_factory.mktemp("model")
    command = [engines_python, str(HERE / "make_model.py"), str(folder)]
    subprocess.run(
        [*command, str(TEMPLATES / "qwen.jinja")], check=True, capture_output=True, timeout=300
    )
    return folder


@pytest.fixture(scope="session")
def pair(
    engines_python: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Engine]]:
    """Two engines, both starting at once."""
    logs = tmp_path_factory.mktemp("logs")
    one = Engine(engines_python, model, logs / "one.log")
    two = Engine(engines_python, model, logs / "two.log", blocks=300)
    try:
        for engine in (one, two):
            engine.launch()
        for engine in (one, two):
            engine.ready()
        yield one, two
    finally:
        one.close()
        two.close()


@pytest.fixture
def engine(pair: tuple[Engine, Engine]) -> Engine:
    """The first engine, with an empty cache."""
    pair[0].post("/reset_prefix_cache", {})
    return pair[0]
