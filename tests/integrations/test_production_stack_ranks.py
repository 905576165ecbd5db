"""Data-parallel ranks behind production-stack: against a stand-in of it."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from production_stack_host import CALLBACKS, URLS, good, run

LOGICS = ["prefixaware", "roundrobin", "kvaware"]


def body(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"{number:04d}" * 600}]}


def loads(monitor: Any) -> Counter[str]:
    stats = monitor.get_request_stats(1e12)
    return Counter({url: s.finished_requests for url, s in stats.items() if s.finished_requests})


@pytest.mark.parametrize("logic", LOGICS)
def test_the_host_hears_urls_and_the_load_is_kept_by_rank(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, logic: str
) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", "2")
    app = stand_in.start(logic, CALLBACKS, URLS[:2])
    monitor = app.state.request_stats_monitor
    for number in range(96):  # prompts of their own: some of them come to every rank
        assert run(stand_in.handle(body(number), str(number), good)) in URLS[:2]
    found = loads(monitor)
    assert set(found) == {f"{url}@{rank}" for url in URLS[:2] for rank in range(2)}
    assert sum(found.values()) == 96
    assert monitor.in_flight == 0
    assert not monitor._placed._of


def test_prompts_stay_with_a_rank(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", "2")
    app = stand_in.start("prefixaware", CALLBACKS, URLS[:2])
    monitor = app.state.request_stats_monitor
    for turn in range(6):
        run(stand_in.handle(body(1), str(turn), good))
    assert list(loads(monitor).values()) == [6]


def test_a_request_carries_the_rank_that_was_chosen(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", "4")
    stand_in.start("roundrobin", CALLBACKS, URLS[:1])
    from routecore.integrations.production_stack import client

    async def backend(url: str) -> None:
        params = SimpleNamespace(url=f"{url}/v1/chat/completions", headers={})
        await client._started(None, None, params)  # type: ignore[arg-type]
        ranks.append(params.headers["X-data-parallel-rank"])

    ranks: list[str] = []
    for number in range(8):
        run(stand_in.handle(body(number), str(number), backend))
    assert Counter(ranks) == dict.fromkeys("0123", 2)


def test_a_failed_attempt_leaves_its_rank(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", "2")
    app = stand_in.start(
        "prefixaware", CALLBACKS, URLS[:2], max_instance_failover_reroute_attempts=1
    )
    monitor = app.state.request_stats_monitor
    tried: list[str] = []

    async def first_fails(url: str) -> None:
        tried.append(url)
        if len(tried) == 1:
            raise ConnectionError
        assert monitor.in_flight == 1
        await asyncio.sleep(0.02)

    assert run(stand_in.handle(body(1), "1", first_fails)) == tried[1] != tried[0]
    assert monitor.in_flight == 0
    assert not monitor._placed._of


@pytest.mark.parametrize("mode, logic", [("shadow", "roundrobin")])
def test_where_it_has_no_effect_it_says_so(
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    logic: str,
) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", "2")
    monkeypatch.setenv("ROUTECORE_MODE", mode)
    app = stand_in.start(logic, CALLBACKS, URLS[:2])
    assert run(stand_in.handle(body(1), "1", good)) in URLS[:2]
    app.state.router.close()  # the record's file, which others would find open
    assert app.state.router.decision.ranks is None
    assert "data_parallel_ranks has no effect" in caplog.text


@pytest.mark.parametrize("ranks", ["0", "-1", "5000", "two"])
def test_a_number_that_cannot_be_ends_the_start(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, ranks: str
) -> None:
    monkeypatch.setenv("ROUTECORE_DATA_PARALLEL_RANKS", ranks)
    with pytest.raises((Exception, SystemExit), match=r"(?i)data_parallel_ranks"):
        stand_in.start("roundrobin", CALLBACKS, URLS[:2])
