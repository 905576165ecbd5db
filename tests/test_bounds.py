"""Times, sizes and shapes that no honest host or engine sends: one does no harm to the others."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    ExpectedLatencyRouter,
    LeastConnectionsRouter,
    PrefixCacheRouter,
    RequestStatsMonitor,
    RouteError,
    __version__,
)
from routecore.cli import main
from routecore.cli.files import write_whole
from routecore.endpoints.metrics import read_metrics
from routecore.integrations.shared.settings import Settings, parameters
from routecore.replay import read_trace

A = "http://a"


def new(made: Any, *args: Any, **options: Any) -> Any:
    return type.__call__(made, *args, **options)


def monitor_of(lease: float = 60.0) -> RequestStatsMonitor:
    made: RequestStatsMonitor = new(
        RequestStatsMonitor, 60.0, lease_timeout=lease, table=EndpointTable()
    )
    return made


@pytest.mark.parametrize("base", [0.0, 1_000.0, 1_800_000_000.0])
@pytest.mark.parametrize("call", ["on_new_request", "on_request_complete", "get_request_stats"])
@pytest.mark.parametrize("wrong", ["ms", "ahead", "behind", "nan", "huge"])
def test_one_wrong_timestamp_harms_one_request(base: float, call: str, wrong: str) -> None:
    monitor = monitor_of()
    for i in range(20):
        monitor.on_new_request(A, f"{i}", base)
    stamp = {
        "ms": (base or 1.7e9) * 1e3,
        "ahead": base + 3_600,
        "behind": base - 3_600,
        "nan": float("nan"),
        "huge": 1e300,
    }[wrong]
    if call == "get_request_stats":
        monitor.get_request_stats(stamp)
    else:
        getattr(monitor, call)(A, "0" if call == "on_request_complete" else "wrong", stamp)
    monitor.get_request_stats(base + 1)
    gone = {"on_new_request": -1, "on_request_complete": 1, "get_request_stats": 0}[call]
    if wrong == "ms" and base < 1e9:
        return  # another clock altogether: years have passed by it
    assert (monitor.in_flight, monitor.leases_expired) == (20 - gone, 0)
    for second in range(2, 300):
        monitor.on_new_request(A, f"dead {second}", base + second)
        monitor.get_request_stats(base + second)
    assert monitor.in_flight <= 62


def test_choices_that_are_never_sent_leave_after_the_clock_was_set_back() -> None:
    monitor = monitor_of()
    router = new(LeastConnectionsRouter, seed=1)
    endpoints = [EndpointInfo(url=f"http://{i}") for i in range(4)]
    monitor.get_request_stats(50_000.0)
    for second in range(700):
        stats = monitor.get_request_stats(46_400.0 + second)
        router.route_request(endpoints, {}, stats, None)
    assert monitor.table.column("in_flight").sum() <= 3


@pytest.mark.parametrize("made", [ExpectedLatencyRouter, PrefixCacheRouter])
def test_refused_prompts_empty_no_index(made: Any) -> None:
    monitor = monitor_of()
    router = new(made, seed=1, hash_seed=1)
    endpoints = (EndpointInfo(url=A),)

    def ask(body: dict[str, Any], name: str, served: bool) -> None:
        now = 1.0
        url = router.route_request(endpoints, {}, monitor.get_request_stats(now), None, body)
        monitor.on_new_request(url, name, now)
        if served:
            monitor.on_request_response(url, name, now)
            monitor.on_request_complete(url, name, now)
        else:
            monitor.on_request_failed(url, name, now, "client")

    for i in range(100):
        ask({"prompt": f"{i} " * 2_000}, f"{i}", served=True)
    held = monitor.table.core.held(A)[0]
    assert held > 1_000
    for size in (1_700_000, 1_500_000, 400_000):
        for i in range(9):
            ask({"prompt": f"{i}" * size}, f"refused {i}", served=False)
    assert monitor.table.core.held(A)[:2] == (held, 0)


def test_a_monitor_used_alone_frees_rows() -> None:
    monitor = monitor_of()
    for i in range(5_000):
        url = f"http://{i}"
        monitor.on_load_elsewhere(url, 3)
        monitor.on_new_request(url, "r", 1.0)
        monitor.on_request_complete(url, "r", 1.0)
    assert len(monitor.table) < 2_000


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt":' + b"[" * 9999])
def test_a_body_nested_too_deeply_is_a_choice_without_a_prompt(body: bytes) -> None:
    class Request:
        _body = body
        headers: dict[str, str] = {}  # noqa: RUF012

    monitor = monitor_of()
    for name, made in ROUTERS.items():
        if name in ("weighted_score", "prefill_decode"):
            continue
        router = new(made)
        stats = monitor.get_request_stats(1.0)
        assert router.route_request([EndpointInfo(url=A)], {}, stats, Request()) == A


@pytest.mark.parametrize("count", [-1, 10**30, 2**70, True, 1.5, "7"])
def test_token_counts_that_cannot_be_are_passed_over(count: Any) -> None:
    monitor = monitor_of()
    monitor.on_new_request(A, "r", 1.0)
    monitor.on_usage(A, "r", count, count, count)
    monitor.on_request_complete(A, "r", 2.0)
    assert (monitor.in_flight, monitor.predictions.requests) == (0, 0)


@pytest.mark.parametrize(("count", "counted"), [(-1, 0), (-(10**30), 0), (10**30, 2**32 - 1)])
def test_a_count_of_other_routers_that_cannot_be_is_the_nearest(count: int, counted: int) -> None:
    monitor = monitor_of()
    monitor.on_new_request(A, "r", 1.0)
    monitor.on_load_elsewhere(A, count)
    assert monitor.table.column("in_flight").tolist() == [1 + counted]


def test_metrics_without_bounds_are_refused() -> None:
    sample = 'vllm:num_requests_running{model="x"} 1\n'
    assert read_metrics(sample).running == 1
    with pytest.raises(ValueError, match="samples"):
        read_metrics(sample * 10_000)
    with pytest.raises(ValueError, match="lines"):
        read_metrics(sample + "#\n" * 100_000)
    labels = ",".join(f'l{i}="x"' for i in range(10_000))
    assert read_metrics(f"{sample}vllm:num_requests_waiting{{{labels}}} 1\n").skipped == 1


def test_settings_name_where_they_stand(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "strategy: 2020-13-45"), ("a.toml", "a = " + "[" * 2_000)):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(RouteError, match=name):
            Settings.read({"ROUTECORE_CONFIG": str(path)})
    with pytest.raises(RouteError, match="ROUTECORE_PARAMS"):
        parameters("a=\udcff", "ROUTECORE_PARAMS")


ROW = b'{"timestamp": 0, "input_length": 600, "output_length": 9, "hash_ids": [1, 2]}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbf" + ROW, None),
        (b"", "no requests"),
        (b"\n \n", "no requests"),
        (b"[" * 100_000, "neither a JSON object"),
        (ROW + b"[" * 100_000, ":2: "),
        (b'{"body":' * 9_999, "nested too deeply|neither"),
        (ROW.replace(b"9,", b"1073741824,"), "output"),
    ],
)
def test_traces_say_what_is_wrong(tmp_path: Path, text: bytes, said: str | None) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(text)
    if said is None:
        assert len(read_trace(path)) == 1
        return
    with pytest.raises(RouteError, match=said):
        read_trace(path)


def test_a_line_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("routecore.replay.lines.MAX_LINE", 1 << 20)
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (3 << 20)))
    with pytest.raises(RouteError, match=":1: a line of more than 1 MB"):
        read_trace(path)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new" * 100_000 + "\udcff")
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"] and path.read_text() == "old"
    link = tmp_path / "link"
    link.symlink_to(path)
    write_whole(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    write_whole(Path("/dev/null"), "text")
    args = ["replay", "--requests", "5", "--json", "/proc/out.json"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2 and "--json /proc/out.json" in result.output


def test_the_version_is_reported() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"routecore {__version__}\n"
