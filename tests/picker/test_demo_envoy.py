"""The demo's engines behind a real Envoy and the picker."""

import asyncio

import pytest

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from click.testing import CliRunner
from routecore.cli import main
from routecore.demo.runner import run
from routecore.demo.traffic import conversations
from world import needs_envoy


@needs_envoy
def test_each_strategy_has_a_picker_of_its_own() -> None:
    jobs = conversations(rate=8.0, seconds=3.0, seed=1)
    names = ["round_robin", "prefix_cache"]
    settings = {"endpoints": 3, "seconds": 1.0, "speed": 3.0, "envoy": True}
    results = asyncio.run(run(jobs, names, **settings))  # type: ignore[arg-type]
    assert [result.strategy for result in results] == names
    assert all(result.ttft and not result.errors for result in results)
    assert all(result.mean_load > 0 for result in results)


@pytest.mark.parametrize("other", ["--kv-events", "--ranks=2"])
def test_what_does_not_go_together_is_said(other: str) -> None:
    result = CliRunner().invoke(main, ["demo", "--envoy", other])
    assert result.exit_code == 2
    assert "--envoy" in result.stderr
