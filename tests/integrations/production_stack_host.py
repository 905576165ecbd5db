"""The stand-in for production-stack, what its tests share, and whether the real one is there."""

import asyncio
import importlib.machinery
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY

STAND_INS = Path(__file__).parent / "stand_ins"
CALLBACKS = "routecore.integrations.production_stack.callbacks"
URLS = [f"http://engine{n}:8000" for n in range(4)]
BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 600}]}


def real_host() -> bool:
    """Whether production-stack's own router can be run by this Python."""
    places = [place for place in sys.path if Path(place) != STAND_INS]
    found = importlib.machinery.PathFinder.find_spec("vllm_router", places)
    roots = found.submodule_search_locations if found is not None else None
    return any((Path(root) / "routers" / "routing_logic.py").exists() for root in roots or ())


def endpoints(*urls: str, label: str = "default") -> list[Any]:
    return [SimpleNamespace(url=url, model_label=label) for url in urls]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def good(_url: str) -> None:
    await asyncio.sleep(0.02)  # what answers sooner is taken for no engine


def figure(name: str, **labels: str) -> float:
    found = 0.0
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found += sample.value
    return found


def subprocess_says(code: str, *paths: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[*map(str, paths)]!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
