"""Each test meets a host that has just been imported."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from production_stack_host import STAND_INS

_OURS = "routecore.integrations.production_stack"


def forget(*packages: str) -> None:
    """Drop packages, so that they are imported anew."""
    for name in list(sys.modules):
        if name in packages or name.startswith(tuple(f"{package}." for package in packages)):
            module = sys.modules.pop(name)
            parent, _, attribute = name.rpartition(".")
            if getattr(sys.modules.get(parent), attribute, None) is module:
                delattr(sys.modules[parent], attribute)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The stand-in's application module; no setting of this machine reaches the test."""
    for name in [name for name in os.environ if name.startswith("ROUTECORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(STAND_INS))
    forget("vllm_router", _OURS)
    import vllm_router.app

    yield vllm_router.app
    forget("vllm_router", _OURS)
