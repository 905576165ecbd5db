"""Shadow mode in production-stack; against a stand-in. The records and their report."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from production_stack_host import (
    BODY,
    CALLBACKS,
    URLS,
    figure,
    good,
    run,
)
from routecore.cli import main
from routecore.integrations.shared.shadow import Record, ShadowLog, summarise


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
    # The first is new to everyone; the host shows the prompt to each of four once.
    assert summary.hit_rate == {"host": 0.5, "ours": 0.875}
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

    app.state.router.decision.router = Expects()
    run(stand_in.handle(BODY, "1", good))
    app.state.router.close()
    summary = summarise(tmp_path.glob("routecore-shadow-*.jsonl"))
    assert summary.latency_ms == {"host": 20.0, "ours": 0.0}


def record(n: int, **more: Any) -> Record:
    return Record(time=float(n), strategy="s", host="h", ours=f"o{n % 2}", **more)


def test_records_fill_two_files_and_no_more(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path / "r.jsonl", max_bytes=2_000)
    for n in range(500):
        log.write(record(n))
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["r.jsonl", "r.jsonl.1"]
    assert all(file.stat().st_size <= 2_000 for file in files)
    assert '"time":499.0' in files[0].read_text().splitlines()[-1]
    log.write(record(500))  # after it was closed
    log.close()
    assert summarise(files).requests > 20


def test_the_report_sums_up_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    log = ShadowLog(file)
    known = {"prompt_tokens": 100.0, "host_hit_tokens": 25.0, "our_hit_tokens": 75.0}
    log.write(record(0, **known, host_latency_ms=30.0, our_latency_ms=10.0))
    log.write(Record(time=1.0, strategy="s", host="h", ours="h", prompt_tokens=100.0))
    log.close()
    with file.open("ab") as end:
        end.write(b'{"time": 2.0, "stra')
    result = CliRunner().invoke(main, ["shadow-report", str(file)])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "requests            2 (1 lines skipped)",
        "strategy            s",
        "agreement           50.0%",
        "                          host       ours",
        "predicted hit tokens     12.5%      37.5%",
        "busiest endpoint        100.0%      50.0%",
        "predicted latency      30.0 ms    10.0 ms",
    ]
    as_json = CliRunner().invoke(main, ["shadow-report", str(file), "--json"])
    assert json.loads(as_json.output)["latency_ms"] == {"host": 30.0, "ours": 10.0}


@pytest.mark.parametrize("text", [None, "", "no record\n"])
def test_a_report_of_nothing_is_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "r.jsonl"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(main, ["shadow-report", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {file}: ")
    assert result.stderr.count("\n") == 1


def test_sessions_are_compared_with_the_ring_that_active_mode_follows(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_MODE", "shadow")
    app = stand_in.start("session", CALLBACKS, URLS, session_key="user")
    router = app.state.router
    for n in range(40):
        body = {**BODY, "user": f"user {n}"}
        run(stand_in.handle(body, str(n), good))
    router.decision.shadow.log.close()
    (path,) = Path.cwd().glob("routecore-shadow-*.jsonl")
    ours = [json.loads(line)["ours"] for line in path.read_text().splitlines()]
    ring = type(router._ring)()
    assert ours == [ring.owner(f"user {n}", set(URLS)) for n in range(40)]
