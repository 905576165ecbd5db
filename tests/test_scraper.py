"""The scraper against real HTTP servers on loopback."""

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from routecore import EndpointInfo, EndpointTable, EngineStatsScraper, RouteError
from routecore.endpoints.metrics import read_metrics

OLD = """\
# HELP vllm:num_requests_running Requests in the batch.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a"} 3.0
vllm:num_requests_waiting{model_name="a"} 2.0
vllm:gpu_cache_usage_perc{model_name="a"} 0.25
# TYPE vllm:gpu_prefix_cache_queries_total counter
vllm:gpu_prefix_cache_queries_total{model_name="a"} 1000.0
vllm:gpu_prefix_cache_hits_total{model_name="a"} 400.0
"""
NEW = """\
vllm:num_requests_running{model_name="a",engine="0"} 3.0
vllm:num_requests_running{model_name="a",engine="1"} 4.0
vllm:num_requests_waiting{model_name="a",engine="0"} 1.0
vllm:num_requests_waiting{model_name="a",engine="1"} 0.0
vllm:kv_cache_usage_perc{model_name="a",engine="0"} 0.2
vllm:kv_cache_usage_perc{model_name="a",engine="1"} 0.4
vllm:prefix_cache_queries{model_name="a",engine="0"} 100.0
vllm:prefix_cache_hits{model_name="a",engine="0"} 50.0
"""


class Engine:
    """A server whose `/metrics` answers `text`, after `delay` seconds, with `status`."""

    def __init__(self, text: str, context: ssl.SSLContext | None = None) -> None:
        self.text, self.delay, self.status = text, 0.0, 200
        self.path, self.token, self.coding = "", "", ""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(engine.delay)
                engine.path, engine.token = self.path, self.headers.get("Authorization", "")
                assert self.headers["Accept-Encoding"] == "identity"
                body = engine.text.encode()
                try:
                    self.send_response(engine.status)
                    if engine.coding:
                        self.send_header("Content-Encoding", engine.coding)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    pass  # the scraper gave up on us: that is what some tests are about

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")
        self._thread = threading.Thread(
            target=lambda: self._server.serve_forever(poll_interval=0.01), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def engine() -> Iterator[Callable[[str], Engine]]:
    engines: list[Engine] = []

    def make(text: str) -> Engine:
        engines.append(Engine(text))
        return engines[-1]

    yield make
    for one in engines:
        one.stop()


@pytest.fixture
def scraper() -> Iterator[Callable[..., EngineStatsScraper]]:
    made: list[EngineStatsScraper] = []

    def make(endpoints: object, interval: float = 0.1, **options: object) -> EngineStatsScraper:
        # Past the singleton registry: each test has its own.
        one: EngineStatsScraper = type.__call__(
            EngineStatsScraper, endpoints, interval, **{"table": EndpointTable(), **options}
        )
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def column(scraper: EngineStatsScraper, name: str, url: str) -> float:
    table = scraper.table
    return float(table.column(name)[table.urls.index(url)])


def test_old_metric_names_are_read(engine, scraper):
    one = engine(OLD)
    s = scraper([EndpointInfo(one.url)])
    s.scrape_once()
    stats = s.get_engine_stats()[one.url]
    assert (stats.num_running_requests, stats.num_queuing_requests) == (3, 2)
    assert stats.active_connections == 5
    assert stats.gpu_cache_usage_perc == 0.25
    assert stats.gpu_prefix_cache_hit_rate == 0.4
    assert stats.gpu_prefix_cache_queries_total == 1000
    assert column(s, "active_connections", one.url) == 5
    assert column(s, "gpu_cache_usage_perc", one.url) == 0.25


def test_new_metric_names_are_summed_over_ranks_and_usage_is_their_mean(engine, scraper):
    one = engine(NEW)
    s = scraper([one.url])
    s.scrape_once()
    stats = s.get_engine_stats()[one.url]
    assert (stats.num_running_requests, stats.num_queuing_requests) == (7, 1)
    assert stats.gpu_cache_usage_perc == pytest.approx(0.3)
    assert stats.gpu_prefix_cache_hit_rate == 0.5


def test_a_stat_under_its_old_and_new_name_counts_once():
    both = NEW + OLD.replace("vllm:num_requests", "x:num_requests")
    reading = read_metrics(both)
    assert (reading.hits, reading.queries) == (50, 100)
    assert reading.usage == pytest.approx(0.3)


def test_hit_rate_is_that_of_the_last_interval_until_the_counter_resets(engine, scraper):
    one = engine(OLD)
    s = scraper([one.url])
    rates = []
    for queries, hits in ((1000, 400), (1100, 490), (1100, 490), (10, 1)):
        one.text = (
            f"vllm:prefix_cache_queries_total {queries}\nvllm:prefix_cache_hits_total {hits}\n"
        )
        s.scrape_once()
        rates.append(s.get_engine_stats()[one.url].gpu_prefix_cache_hit_rate)
    assert rates == [0.4, 0.9, 0.9, 0.1]


def test_what_an_engine_does_not_report_stays_unknown_in_the_table(engine, scraper):
    one = engine(OLD)
    s = scraper([one.url])
    s.scrape_once()
    one.text = "vllm:num_requests_running 1\n"
    s.scrape_once()
    assert column(s, "num_running_requests", one.url) == 1
    usage = column(s, "gpu_cache_usage_perc", one.url)
    assert usage != usage  # NaN: not known, and not the old 0.25


def test_a_dead_endpoint_expires_and_the_living_one_stays(engine, scraper):
    dead, alive = engine(OLD), engine(NEW)
    s = scraper([dead.url, alive.url], 0.05, stale_after=0.3)
    s.start()
    assert eventually(lambda: len(s.get_engine_stats()) == 2)
    dead.status = 500
    assert eventually(lambda: set(s.get_engine_stats()) == {alive.url})
    load = column(s, "active_connections", dead.url)
    assert load != load
    assert s.failures > 0
    assert s.get_health()


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "br"])
def test_a_packed_answer_that_nobody_asked_for_is_not_unpacked(engine, scraper, coding):
    bomb, other = engine(OLD), engine(NEW)
    bomb.coding = coding
    s = scraper([bomb.url, other.url])
    s.scrape_once()
    assert list(s.get_engine_stats()) == [other.url]
    other.text = NEW + "#" * (3 << 20)
    s.scrape_once()
    assert s.failures == 3


def test_stats_are_stale_by_the_readers_clock(engine, scraper, monkeypatch):
    now = [time.monotonic()]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("routecore.endpoints.scraper.time", clock)
    one = engine(OLD)
    s = scraper([one.url], stale_after=0.5)
    s.scrape_once()
    assert one.url in s.get_engine_stats()
    now[0] += 0.6  # and no thread sweeps
    assert one.url not in s.get_engine_stats()
    load = column(s, "active_connections", one.url)
    assert load != load


def test_a_refused_connection_is_a_failure_and_not_an_error(scraper):
    s = scraper(["http://127.0.0.1:1"])
    s.scrape_once()
    assert len(s.get_engine_stats()) == 0
    assert s.failures == 1


def test_a_slow_endpoint_does_not_delay_the_others(engine, scraper):
    slow, quick = engine(OLD), engine(NEW)
    slow.delay = 600.0
    s = scraper([slow.url, quick.url], timeout=300.0)
    s.start()
    assert eventually(lambda: quick.url in s.get_engine_stats())
    assert (slow.url in s.get_engine_stats(), s.failures) == (False, 0)  # it is still waited for


LABELS = ",".join(f'l{i}="xxxx"' for i in range(90))
LONG = f"vllm:num_requests_running{{{LABELS}}} 1\n"


def test_answers_that_take_long_to_read_starve_nobody(engine, scraper, monkeypatch):
    monkeypatch.setattr("routecore.endpoints.metrics_http._READ_SECONDS", 60.0)
    slow, quick = engine(LONG * 200), engine(NEW)  # some 0.1 s each
    quick.delay = 0.1  # it answers while the others are being read
    urls = [f"{slow.url}/{i}" for i in range(12)]
    s = scraper([*urls, quick.url], timeout=60.0)
    stored: list[str] = []
    store = s._store
    s._store = lambda answers: (stored.extend(answers), store(answers))
    s.scrape_once()
    assert sorted(stored) == sorted([*urls, quick.url])
    assert stored.index(quick.url) < len(urls)  # not behind all of them


def test_reading_one_answer_takes_bounded_time(engine, scraper, monkeypatch):
    monkeypatch.setattr("routecore.endpoints.metrics_http._READ_SECONDS", 0.03)
    slow, quick = engine(LONG * 1000), engine(NEW)
    s = scraper([slow.url, quick.url], timeout=60.0)
    s.scrape_once()
    assert (list(s.get_engine_stats()), s.failures) == ([quick.url], 1)


def test_garbage_and_nan_samples_are_skipped_and_counted(engine, scraper):
    one = engine(
        "vllm:num_requests_running NaN\n"
        'vllm:num_requests_running{model_name="b"} 2\n'
        "vllm:num_requests_waiting{{{ nonsense\n"
        "vllm:kv_cache_usage_perc -1\n"
        "\x00 what is this\n"
    )
    s = scraper([one.url])
    s.scrape_once()
    assert s.get_engine_stats()[one.url].num_running_requests == 2
    assert s.skipped_samples == 3


def test_an_error_page_is_no_idle_engine(engine, scraper):
    one = engine("<html>busy</html>")
    s = scraper([one.url])
    s.scrape_once()
    assert one.url not in s.get_engine_stats()
    assert s.failures == 1


def test_endpoints_that_vanish_are_dropped(engine, scraper):
    one, other = engine(OLD), engine(NEW)
    urls = [one.url, other.url]
    s = scraper(lambda: list(urls))
    s.scrape_once()
    urls.remove(one.url)
    s.scrape_once()
    assert list(s.get_engine_stats()) == [other.url]


def test_a_discovery_that_fails_does_not_end_scraping(engine, scraper):
    one = engine(OLD)
    broken = threading.Event()
    broken.set()

    def discover() -> list[str]:
        if broken.is_set():
            raise OSError("no discovery")
        return [one.url]

    s = scraper(discover, 0.02)
    s.start()
    assert eventually(lambda: s.failures > 0)
    broken.clear()
    assert eventually(lambda: one.url in s.get_engine_stats())


def test_close_stops_the_thread_forgets_and_may_be_repeated(engine, scraper):
    one = engine(OLD)
    s = scraper([one.url])
    s.start()
    assert eventually(lambda: one.url in s.get_engine_stats())
    s.close()
    s.close()
    assert not s.get_health()
    assert len(s.get_engine_stats()) == 0
    s.start()
    assert eventually(lambda: one.url in s.get_engine_stats())


def test_close_waits_for_no_engine_that_does_not_answer(scraper):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers none
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one = scraper([url], timeout=3600.0)
        one.start()
        taken, _ = silent.accept()
        with taken:
            taken.recv(1)
            thread = one._thread
            assert thread is not None
            one.close()  # were it to wait for the answer, it would last for two hours
            assert not thread.is_alive()


IMPORTS = """
import sys, threading, time
from routecore import EngineStatsScraper

before = set()
start = threading.Thread.start
def noting(thread):
    if thread.name == "routecore-scraper":
        before.update(sys.modules)
    start(thread)
threading.Thread.start = noting
scraper = EngineStatsScraper([sys.argv[1]], 0.05)
scraper.start()
while not scraper.get_engine_stats():
    time.sleep(0.01)
scraper.close()
print(sorted(set(sys.modules) - before))
"""


def test_the_thread_imports_nothing_that_a_fork_could_cut_in_two(engine):
    url = engine(NEW).url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, url], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_view_handed_out_keeps_what_it_showed(engine, scraper):
    one = engine(OLD)
    s = scraper([one.url])
    s.scrape_once()
    view = s.get_engine_stats()
    one.text = "vllm:num_requests_running 9\n"
    s.scrape_once()
    assert view[one.url].num_running_requests == 3
    assert s.get_engine_stats()[one.url].num_running_requests == 9


@pytest.mark.parametrize("name", ["scrape_interval", "timeout", "stale_after"])
def test_a_duration_that_is_not_above_0_is_refused_by_name(name, scraper):
    options = {"interval" if name == "scrape_interval" else name: 0.0}
    with pytest.raises(RouteError, match=name):
        scraper([], **options)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate by openssl")
def test_https_with_a_ca_file_or_without_verification_and_a_token(
    scraper: Callable[..., EngineStatsScraper], tmp_path: Path
) -> None:
    key, cert = str(tmp_path / "key"), str(tmp_path / "cert")
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    name = ["-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run(
        ["openssl", "req", *made, *name, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    one = Engine(OLD, context)
    try:
        for verify, trusted in ((True, False), (False, True), (cert, True)):
            options = {"headers": {"Authorization": "Bearer t"}, "path": "prometheus/metrics"}
            s = scraper([one.url], verify=verify, **options)
            s.scrape_once()
            assert (one.url in s.get_engine_stats()) is trusted
        assert (one.path, one.token) == ("/prometheus/metrics", "Bearer t")
    finally:
        one.stop()


def test_a_ca_file_that_cannot_be_read_is_named(scraper: Callable[..., EngineStatsScraper]) -> None:
    with pytest.raises(RouteError, match=r"CA file '/nowhere/ca.pem'"):
        scraper([], verify="/nowhere/ca.pem")
