"""`import routecore` in a new interpreter, beside an interpreter that imports nothing."""

import subprocess
import sys
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("code", ["import routecore", "pass"])
def test_import(benchmark: BenchmarkFixture, code: str) -> None:
    benchmark.group = "import"
    command = [sys.executable, "-c", code]
    bench: Any = benchmark
    bench.pedantic(subprocess.run, (command,), {"check": True}, rounds=10, warmup_rounds=2)
