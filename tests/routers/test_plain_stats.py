"""Stats of hosts' own objects, many at once: whatever they are, the least loaded is found."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import EndpointInfo, EngineStats, LeastConnectionsRouter, new_instance


@dataclasses.dataclass
class Active:
    active_connections: Any


@dataclasses.dataclass
class Both:
    num_running_requests: Any
    num_queuing_requests: Any = 0


class Computed:
    def __init__(self, load: float) -> None:
        self.load = load

    @property
    def active_connections(self) -> float:
        if self.load == 5:
            raise RuntimeError("not now")
        return self.load


def mixed(load: float) -> Any:
    if load % 2:
        return SimpleNamespace(active_connections=load)
    return SimpleNamespace(num_running_requests=load, num_queuing_requests=0)


KINDS: list[Callable[[float], Any]] = [
    Active,
    Both,
    Computed,
    mixed,
    lambda load: Active(str(load)) if load == 5 else Active(int(load)),
    lambda load: Both(load) if load % 3 else Active(load),
    lambda load: SimpleNamespace() if load == 5 else Active(load),
    lambda load: EngineStats(num_running_requests=int(load)) if load % 2 else Active(load),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("count", [7, 8, 9, 19])
def test_the_least_loaded_wins_wherever_it_stands(make: Callable[[float], Any], count: int) -> None:
    router: Any = new_instance(LeastConnectionsRouter, seed=1)
    endpoints = [EndpointInfo(url=f"http://e{n}") for n in range(count)]
    for at in range(count):
        loads = [float(2 + (n - at) % count) if n != at else 1.0 for n in range(count)]
        stats = {e.url: make(load) for e, load in zip(endpoints, loads, strict=True)}
        for given in (stats, dict(reversed(stats.items()))):
            assert router.route_request(endpoints, given, {}, None) == endpoints[at].url


def test_a_change_in_place_is_read_at_the_next_call() -> None:
    router: Any = new_instance(LeastConnectionsRouter, seed=1)
    endpoints = [EndpointInfo(url=f"http://e{n}") for n in range(16)]
    stats = {endpoint.url: Active(9) for endpoint in endpoints}
    for endpoint in endpoints * 2:
        stats[endpoint.url].active_connections = 1
        assert router.route_request(endpoints, stats, {}, None) == endpoint.url
        stats[endpoint.url].active_connections = 9
    del stats[endpoints[3].url].active_connections
    stats[endpoints[4].url].active_connections = 2
    assert router.route_request(endpoints, stats, {}, None) == endpoints[4].url


def test_an_interrupt_in_a_getter_passes() -> None:
    class Interrupted:
        @property
        def active_connections(self) -> float:
            raise KeyboardInterrupt

    router: Any = new_instance(LeastConnectionsRouter, seed=1)
    endpoints = [EndpointInfo(url=f"http://e{n}") for n in range(8)]
    with pytest.raises(KeyboardInterrupt):
        router.route_request(endpoints, {e.url: Interrupted() for e in endpoints}, {}, None)
