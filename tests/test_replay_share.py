"""Replayed routers that tell each other their load: what a run of several looks like then."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from routecore import RouteError
from routecore.cli import main
from routecore.replay import Share, generate, run
from routecore.replay.result import ReplayResult

TRACE = generate("chat", requests=600, rate=60, seed=1)


def share_of(
    text: str | None, routers: int = 4, strategy: str = "least_connections"
) -> ReplayResult:
    share = None if text is None else Share.of(text)
    return run(TRACE, strategy=strategy, routers=routers, share=share, seed=3)


def test_routers_that_share_are_nearly_as_even_as_one() -> None:
    one, apart, sharing = share_of(None, 1), share_of(None), share_of("20ms")
    assert sharing.max_over_mean_load < apart.max_over_mean_load
    assert sharing.max_over_mean_load < 1.15 * one.max_over_mean_load


def test_a_run_is_the_same_every_time_its_losses_included() -> None:
    first, second = (share_of("100ms:delay=5ms:loss=0.3") for _ in range(2))
    assert (first.per_request.endpoint == second.per_request.endpoint).all()
    other = share_of("100ms:delay=5ms")
    assert (first.per_request.endpoint != other.per_request.endpoint).any()


def test_where_every_message_is_lost_routers_are_apart() -> None:
    lost, apart = share_of("100ms:loss=1"), share_of(None)
    assert (lost.per_request.endpoint == apart.per_request.endpoint).all()
    assert lost.settings.share == "every 100 ms, 100 % lost"


@pytest.mark.parametrize(
    "text", ["", "fast", "200", "200ms:loss=2", "200ms:loss=x", "200ms:lost=0.1", "0ms", "1m"]
)
def test_a_share_that_is_none_says_what_is_expected(text: str) -> None:
    with pytest.raises(RouteError, match="share"):
        Share.of(text)


def test_the_command_shows_one_router_and_routers_apart_beside_those_that_share(
    tmp_path: Path,
) -> None:
    line = "replay chat --requests 300 --strategy least_connections --routers 4 --share 50ms"
    found = CliRunner().invoke(main, [*line.split(), "--json", str(tmp_path / "figures.json")])
    assert found.exit_code == 0, found.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    seen = {r["strategy"]: (r["routers"], r.get("share")) for r in figures["results"]}
    assert seen["least_connections"] == (4, "every 50 ms")
    assert seen["least_connections, 1 router"] == (1, None)
    assert seen["least_connections, 4 apart"] == (4, None)
