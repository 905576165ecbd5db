"""The Grafana dashboard, the alert rules and the metrics' page name metrics that exist."""

import json
import queue
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from routecore import (
    EndpointTable,
    ExpectedLatencyRouter,
    HoldLimits,
    RequestStatsMonitor,
    new_instance,
)
from routecore.integrations.shared.telemetry import Telemetry, watch
from routecore.replicas import Replicas

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy/monitoring/alerts.yml"
DASHBOARD = ROOT / "deploy/monitoring/grafana-dashboard.json"
PAGE = ROOT / "docs/metrics.md"
OURS = re.compile(r"\broutecore_[a-z_]+")
OF_PROMETHEUS = {"le", "instance", "job"}


class Between:
    """Carries messages between the two routers of this process."""

    every = 0.05

    def __init__(self) -> None:
        self.other: Between = self
        self._came: queue.Queue[bytes] = queue.Queue()

    def open(self) -> None:
        """Always is."""

    def send(self, message: bytes) -> None:
        self.other._came.put(message)

    def receive(self, timeout: float) -> list[bytes]:
        with suppress(queue.Empty):
            return [self._came.get(timeout=timeout)]
        return []

    def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def two_routers() -> Iterator[None]:
    """That hear each other."""
    here, there = Between(), Between()
    here.other, there.other = there, here
    tables = [EndpointTable(), EndpointTable()]
    pair = [Replicas(way, table=table) for way, table in zip((here, there), tables, strict=True)]
    try:
        end = time.monotonic() + 30.0
        while not all(replicas.peers for replicas in pair):
            assert time.monotonic() < end, "the routers do not hear each other"
            time.sleep(0.01)
        yield
    finally:
        for replicas in pair:
            replicas.close()


@pytest.fixture(scope="module")
def exposed() -> Iterator[dict[str, set[str]]]:
    """Each series of a router with all there is, with its labels."""
    with two_routers():
        yield collected()


def collected() -> dict[str, set[str]]:
    registry = CollectorRegistry()
    telemetry = Telemetry("production_stack", "expected_latency", registry)
    router = new_instance(ExpectedLatencyRouter, seed=1)
    router.set_hold(HoldLimits())
    telemetry.holds(router.hold)
    monitor = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
    watch(monitor, registry)
    if find_spec("envoy") is not None:
        from routecore.integrations.envoy.endpoints.pool import Pool
        from routecore.integrations.envoy.metrics import Counters

        Counters(Pool(lambda url: None), registry)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[tuple[str, str]]:
    rules = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
    found = [(rule["alert"], rule["expr"]) for rule in rules]
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel["targets"]]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_an_expression_is_of_metrics_and_labels_that_exist(
    where: str, expression: str, exposed: dict[str, set[str]]
) -> None:
    names = set(OURS.findall(expression))
    assert names, where
    if any("_picker_" in name for name in names):
        pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")
    assert names <= set(exposed)
    labels = OF_PROMETHEUS.union(*(exposed[name] for name in names))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels
    for series, selector in re.findall(r"(routecore_[a-z_]+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)=", selector)) <= exposed[series]
    assert expression.count("(") == expression.count(")")


def test_every_alert_says_what_to_do() -> None:
    for rule in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "description"} <= set(rule["annotations"])


def test_the_dashboard_is_one() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["description"] for panel in board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_page_of_metrics_has_every_one(exposed: dict[str, set[str]]) -> None:
    named = set(OURS.findall(PAGE.read_text("utf-8")))
    parts = ("_created", "_bucket", "_sum", "_count")
    for series in exposed:
        base = re.sub(f"({'|'.join(parts)})$", "", series)
        assert {base, f"{base}_total"} & named, series
    for name in named:
        assert name in exposed or f"{name}_bucket" in exposed, name
