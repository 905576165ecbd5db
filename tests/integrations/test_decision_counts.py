"""Decisions are counted exactly, whoever counts and whoever asks, and as the library would."""

import subprocess
import sys
import threading

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from routecore.integrations.shared import decision_counts
from routecore.integrations.shared.telemetry import Telemetry

TIMES = (0.0, 1e-6, 2e-6, 2.1e-6, 1e-5, 0.9e-3, 1e-3, 0.5, 7.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_buckets_and_sum_are_those_of_the_library(registry: CollectorRegistry) -> None:
    telemetry = Telemetry("litellm", "prefix_cache", registry)
    plain = CollectorRegistry()
    labels = ["host", "strategy"]
    of_library = Histogram(
        "routecore_decision_seconds",
        "Time that one choice takes.",
        labels,
        buckets=decision_counts.BUCKETS,
        registry=plain,
    ).labels("litellm", "prefix_cache")
    for seconds in TIMES:
        telemetry.decided(seconds)
        of_library.observe(seconds)

    def lines(of: CollectorRegistry) -> set[str]:
        text = generate_latest(of).decode().splitlines()
        return {
            line
            for line in text
            if "decision_seconds" in line and "decision_seconds_created" not in line
        }

    assert lines(registry) == lines(plain)


def test_outcomes_are_counted_by_label_and_shared_by_those_with_the_same(
    registry: CollectorRegistry,
) -> None:
    first = Telemetry("litellm", "prefix_cache", registry)
    second = Telemetry("litellm", "prefix_cache", registry)
    other = Telemetry("envoy", "prefix_cache", registry)
    first.decided(1e-6)
    second.decided(1e-6)
    second.fell_back()
    other.shadowed(1e-6)

    def counted(host: str, outcome: str) -> float | None:
        labels = {"host": host, "strategy": "prefix_cache", "outcome": outcome}
        return registry.get_sample_value("routecore_decisions_total", labels)

    assert [counted("litellm", o) for o in decision_counts.OUTCOMES] == [2, 1, 0]
    assert [counted("envoy", o) for o in decision_counts.OUTCOMES] == [0, 0, 1]


def test_no_decision_is_lost_or_counted_twice_by_threads_and_scrapes(
    registry: CollectorRegistry,
) -> None:
    telemetry = Telemetry("litellm", "prefix_cache", registry)

    def decide() -> None:
        for _ in range(5000):
            telemetry.decided(1e-6)

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        generate_latest(registry)
    labels = {"host": "litellm", "strategy": "prefix_cache"}
    assert registry.get_sample_value("routecore_decision_seconds_count", labels) == 20_000


def test_times_that_nobody_asks_for_are_bounded(registry: CollectorRegistry) -> None:
    counts = decision_counts._Summed()
    for _ in range(10_000):
        counts.chose(1e-6)
        counts.shadowed(1e-6)
    assert len(counts._left) < decision_counts._MAX_LEFT
    assert len(counts._shadow) < decision_counts._MAX_LEFT
    assert counts.sum_up()[0] == {"strategy": 10_000, "fallback": 0, "shadow": 10_000}


def test_several_processes_that_write_into_one_directory_are_added_up(tmp_path: object) -> None:
    code = (
        "from routecore.integrations.shared.telemetry import Telemetry\n"
        "telemetry = Telemetry('litellm', 'prefix_cache')\n"
        "telemetry.decided(1e-6)\n"
        "telemetry.fell_back()\n"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    read = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "registry = CollectorRegistry()\n"
        "MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", read], check=True, env=environment, capture_output=True, text=True
    ).stdout
    labels = 'host="litellm",strategy="prefix_cache"'
    outcome = 'routecore_decisions_total{host="litellm",outcome="%s",strategy="prefix_cache"} 2.0'
    assert outcome % "strategy" in found
    assert outcome % "fallback" in found
    assert f"routecore_decision_seconds_count{{{labels}}} 2.0" in found
