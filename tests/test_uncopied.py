"""What belongs to one process says so when it is pickled or copied, and names itself."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import routecore
from routecore import (
    ROUTERS,
    EndpointTable,
    EngineStatsScraper,
    Fleet,
    PrefillDecodeRouter,
    RequestStatsMonitor,
    _core,
    new_instance,
)
from routecore.endpoints.views import EngineStatsView
from routecore.hold import HoldLimits
from routecore.hold.queue import Hold
from routecore.kv_events import KVEventSubscriber, KVIndex
from routecore.replicas import Replicas

PROMPTS = (128, 16, 7, 400_000.0)


class OfAHost(routecore.LeastConnectionsRouter):
    """A host's own router, which inherits it."""


def core_parts() -> list[Any]:
    """One of each class of the compiled core."""
    table, router = _core.Table(), _core.Router("random", {}, 1, PROMPTS)
    return [
        table,
        router,
        _core.Hold(router),
        _core.KvIndex(1, 16),
        _core.Replicas(table, group="g", origin=1, epoch=1),
        _core.ResidentEngineStats(table),
        _core.ResidentRequestStats(table, 0.0),
        _core.Trace(16),
    ]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[list[Any]]:
    """One of each class that has a part of the core, or threads."""
    monitor = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
    made = [new_instance(cls) for name, cls in ROUTERS.items() if name != "weighted_score"]
    table = EndpointTable()
    threads: list[Any] = [KVEventSubscriber(), Replicas(f"zmq+ipc://{tmp_path}", table=table)]
    yield [
        *made,
        new_instance(OfAHost),
        new_instance(PrefillDecodeRouter),
        monitor,
        monitor.get_request_stats(1.0),
        EngineStatsView(table.core, {}),
        table,
        new_instance(EngineStatsScraper, ["http://127.0.0.1:9"], table=table),
        Fleet(["http://a"]),
        Hold(_core.Router("random", {}, 1, PROMPTS), "random", HoldLimits()),
        KVIndex(seed=1),
        *threads,
    ]
    for part in threads:
        part.close()


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_no_copy_is_made_of_what_belongs_to_a_process(
    way: Callable[[Any], Any], parts: list[Any]
) -> None:
    for part in [*core_parts(), *parts]:
        with pytest.raises(TypeError, match=r"cannot pickle or copy .*: its locks") as raised:
            way(part)
        assert type(part).__name__ in str(raised.value)
        assert "make a new one" in str(raised.value) or "take dict(view)" in str(raised.value)


def test_all_classes_of_the_core_are_covered() -> None:
    known = {type(part) for part in core_parts()}
    assert known == {kind for kind in vars(_core).values() if isinstance(kind, type)}


def test_what_is_inside_a_container_names_itself() -> None:
    with pytest.raises(TypeError, match=r"cannot pickle or copy RandomRouter:"):
        pickle.dumps({"router": new_instance(routecore.RandomRouter)})
