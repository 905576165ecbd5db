"""Shadow mode in production-stack; against a stand-in."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from production_stack_host import (
    BODY,
    CALLBACKS,
    URLS,
    figure,
    good,
    run,
)
from routecore.integrations.shared.shadow import summarise


def test_in_the_shadow_the_host_chooses_and_we_are_recorded(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    monitor = app.state.request_stats_monitor

    async def eight() -> list[str]:
        return [await stand_in.handle(BODY, str(n), good) for n in range(8)]

    assert run(eight()) == URLS * 2  # the host's own turns
    assert monitor.events[0] == ("new", URLS[0], "0")  # and its own monitor
    assert monitor.in_flight == 0
    app.state.router.close()
    summary = summarise(tmp_path.glob("routecore-shadow-*.jsonl"))
    assert (summary.requests, summary.agreement) == (8, 0.25)
    assert summary.busiest_share == {"host": 0.25, "ours": 1.0}
    # The first is new to everyone; the host shows the prompt to each of four once. What is behind
    # the last full block is never found.
    full = summary.hit_rate["host"] / 0.5
    assert 0.8 < full < 1.0
    assert summary.hit_rate["ours"] == pytest.approx(0.875 * full)
    assert summary.latency_ms == {"host": None, "ours": None}


def test_in_the_shadow_an_error_of_ours_changes_nothing(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    monkeypatch.setenv("ROUTECORE_SHADOW_FILE", "/nowhere/at/all.jsonl")
    stand_in.start("roundrobin", CALLBACKS, URLS)
    before = figure("routecore_decisions_total", outcome="fallback")
    assert run(stand_in.handle(BODY, "1", good)) == URLS[0]
    assert figure("routecore_decisions_total", outcome="fallback") == before + 1


def test_latencies_are_those_expected_before_the_choice(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    app = stand_in.start("roundrobin", CALLBACKS, URLS)

    class Expects:
        """As a strategy of milliseconds: each choice makes the chosen endpoint slower."""

        chosen = 0

        def route_request(self, *_: Any) -> str:
            self.chosen += 1
            return URLS[1]

        def explain(self, *_: Any) -> Any:
            def candidate(url: str, ms: float) -> Any:
                terms = [SimpleNamespace(unit="ms", value=ms), SimpleNamespace(unit="1", value=9)]
                return SimpleNamespace(url=url, terms=terms)

            slow = 10.0 * self.chosen
            return SimpleNamespace(candidates=[candidate(URLS[0], 20.0), candidate(URLS[1], slow)])

    app.state.router.decision.shadow._router = Expects()
    run(stand_in.handle(BODY, "1", good))
    app.state.router.close()
    summary = summarise(tmp_path.glob("routecore-shadow-*.jsonl"))
    assert summary.latency_ms == {"host": 20.0, "ours": 0.0}


def test_sessions_are_compared_with_the_ring_that_active_mode_follows(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    app = stand_in.start("session", CALLBACKS, URLS, session_key="user")
    router = app.state.router
    for n in range(40):
        body = {**BODY, "user": f"user {n}"}
        run(stand_in.handle(body, str(n), good))
    router.close()
    (path,) = Path.cwd().glob("routecore-shadow-*.jsonl")
    ours = [json.loads(line)["ours"] for line in path.read_text().splitlines()]
    ring = type(router._ring)()
    assert ours == [ring.owner(f"user {n}", set(URLS)) for n in range(40)]
