"""The records of shadow mode: their files, their report, their replay. No host needed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from routecore import PrefixCacheRouter, RequestStatsMonitor, new_instance
from routecore.cli import main
from routecore.endpoints.stats import EndpointInfo
from routecore.endpoints.table import EndpointTable
from routecore.integrations.shared.settings import Settings
from routecore.integrations.shared.shadow import (
    MovedRequests,
    Record,
    Shadow,
    ShadowLog,
    Summary,
    compare,
    report,
    summarise,
)
from routecore.integrations.shared.shadow import log as records_log
from routecore.replay import read_trace, shadow_records

URLS = ("http://a", "http://b", "http://c")


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


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_record_is_there_however_the_process_ends(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from routecore.integrations.shared.shadow import Record, ShadowLog\n"
        "log = ShadowLog(sys.argv[1])\n"
        "for n in range(3): log.write(Record(time=n, strategy='s', host='h', ours='o'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "r.jsonl"
    done = subprocess.run([sys.executable, "-c", code, file], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert summarise([file]).requests == 3


def test_the_report_sums_up_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    log = ShadowLog(file)
    known = {"prompt_tokens": 100.0, "host_hit_tokens": 25.0, "our_hit_tokens": 75.0}
    log.write(record(0, **known, host_latency_ms=30.0, our_latency_ms=10.0))
    log.write(Record(time=1.0, strategy="s", host="h", ours="h", prompt_tokens=100.0, took_ms=40.0))
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
        "measured latency       40.0 ms",
        "",
        "Too few requests to tell by; record 200 or more.",
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


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


class Side:
    """Our side of a host that takes its endpoints in turn."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.now = path, 1e9
        clock = SimpleNamespace(time=lambda: self.now, perf_counter=time.perf_counter)
        monkeypatch.setattr(compare, "time", clock)
        self.core = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
        self.failed: list[Exception] = []
        router = new_instance(PrefixCacheRouter, seed=1)
        settings = Settings(mode="shadow", shadow_file=str(path))
        self.shadow = Shadow(settings, "prefix_cache", router, self.failed.append)
        self.moved = MovedRequests(self.core)
        self.endpoints = tuple(EndpointInfo(url=url) for url in URLS)

    def send(self, number: int, sent: dict[str, Any]) -> tuple[str, str]:
        """The host's choice, and the id."""
        self.now += 10.0
        stats = self.core.get_request_stats(self.now)
        choice = self.shadow.choose((self.endpoints, None, stats, None, sent))
        host = URLS[number % len(URLS)]
        self.moved.sent(choice, host, str(number), self.now)
        return host, str(number)

    def load(self) -> list[float]:
        rows = dict(zip(self.core.table.urls, self.core.table.column("in_flight"), strict=True))
        return [rows[url] for url in URLS]

    def records(self) -> list[Record]:
        self.shadow.close()
        return [record for record in records_log.records([self.path]) if record is not None]


def test_our_choices_have_their_own_load_and_their_own_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(tmp_path / "r.jsonl", monkeypatch)
    text = "a long beginning that all of them share " * 100
    for number in range(6):
        host, name = side.send(number, body(text, max_tokens=50))
        assert sum(side.load()) == 1  # at our choice, not at the host's as well
        at = side.load().index(1)
        side.moved.on_request_response(host, name, side.now + 1)
        side.moved.on_usage(host, name, 1000, 990, 7)
        side.moved.on_request_complete(host, name, side.now + 2)
        assert sum(side.load()) == 0
    assert at >= 0 and side.failed == []
    found = side.records()
    assert len({record.ours for record in found}) == 1  # where it is cached
    # The host shows the prompt to each of three once; ours keeps it in one place.
    hits = [(r.host_hit_tokens > 0, r.our_hit_tokens > 0) for r in found]
    assert hits == [(False, False), (False, True), (False, True)] + [(True, True)] * 3
    assert [record.output_tokens for record in found] == [7] * 6
    assert {(r.ttft_ms, r.took_ms) for r in found} == {(1000.0, 2000.0)}


def test_a_request_that_fails_blames_the_host_s_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(tmp_path / "r.jsonl", monkeypatch)
    for number in range(30):
        host, name = side.send(3 * number + 1, body(f"{number} " * 300))
        side.moved.on_request_failed(host, name, side.now, "connect")
    assert side.core.standing(URLS[1]) is not None
    assert [side.core.standing(URLS[n]) for n in (0, 2)] == [None, None]
    assert {record.took_ms for record in side.records()} == {None}


def test_what_has_not_ended_is_written_at_the_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(tmp_path / "r.jsonl", monkeypatch)
    host, name = side.send(0, body("hi"))
    assert len(side.records()) == 1
    side.moved.on_request_complete(host, name, side.now + 2)
    assert len(side.records()) == 1


def test_records_replay_as_the_traffic_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(tmp_path / "r.jsonl", monkeypatch)
    for number in range(12):
        text = f"system prompt {number % 2} " * 400 + f" question {number}"
        host, name = side.send(number, body(text, max_tokens=30))
        if number % 3:
            side.moved.on_usage(host, name, 2000, 0, 20)
        side.moved.on_request_complete(host, name, side.now + 2)
    found = side.records()
    assert shadow_records.BLOCK == records_log.BLOCK_TOKENS
    trace = read_trace(side.path)
    assert (len(trace), trace.block) == (12, 128)
    assert trace.core.input_tokens == sum(r.prompt_tokens for r in found)
    blocks = [tuple(record.hash_ids[:8]) for record in found]
    assert len(set(blocks)) == 2  # one for each of the two system prompts
    assert all(len(r.hash_ids) == r.prompt_tokens // 128 for r in found)
    assert not any("system prompt" in line for line in side.path.read_text().splitlines())

    out = CliRunner().invoke(
        main,
        ["replay", str(side.path), "--strategy", "round_robin", "--endpoints", "2", "--json"],
    )
    assert out.exit_code == 0, out.output
    assert json.loads(out.stdout)["results"][0]["requests"] == 12


def test_a_bad_line_of_a_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    bad = {"time": 1.0, "strategy": "s", "host": "h", "ours": "o", "prompt_tokens": 256}
    path.write_text(json.dumps({**bad, "hash_ids": [-1]}))
    out = CliRunner().invoke(main, ["replay", str(path)])
    assert out.exit_code == 2 and "r.jsonl:1: " in out.stderr


def summary(**given: Any) -> Summary:
    known: dict[str, Any] = {
        "requests": 1000,
        "skipped": 0,
        "strategy": "expected_latency",
        "agreement": 0.3,
        "hit_rate": {"host": 0.2, "ours": 0.5},
        "busiest_share": {"host": 0.25, "ours": 0.27},
        "latency_ms": {"host": 400.0, "ours": 300.0},
        "endpoints": 4,
    }
    return Summary(**{**known, **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "is better here: 50% of prompt tokens found in a cache, instead of 20% and"),
        ({"busiest_share": {"host": 0.25, "ours": 0.6}}, "gets 60% of the requests, instead of"),
        ({"requests": 199}, "Too few requests"),
        ({"endpoints": 1}, "nothing to choose"),
        ({"hit_rate": {"host": 0.5, "ours": 0.2}}, "gains and loses"),
        (
            {"hit_rate": {"host": 0.5, "ours": 0.2}, "latency_ms": {"host": 3.0, "ours": 4.0}},
            "is worse here",
        ),
        (
            {
                "hit_rate": {"host": None, "ours": None},
                "latency_ms": {"host": None, "ours": None},
            },
            "prompts were not seen",
        ),
        (
            {
                "hit_rate": {"host": 0.5, "ours": 0.5},
                "latency_ms": {"host": None, "ours": None},
                "agreement": 0.99,
            },
            "nothing would change",
        ),
        (
            {"hit_rate": {"host": 0.5, "ours": 0.51}, "latency_ms": {"host": 50.0, "ours": 50.5}},
            "makes no difference",
        ),
        (
            {
                "hit_rate": {"host": 0.5, "ours": 0.5},
                "latency_ms": {"host": None, "ours": None},
                "busiest_share": {"host": 0.25, "ours": 0.6},
            },
            "is no better here, and",
        ),
    ],
)
def test_the_verdict_is_in_words(given: dict[str, Any], said: str) -> None:
    assert said in report.verdict(summary(**given))
