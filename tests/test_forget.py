"""`forget()`: caches that are lost, and engines that are others now."""

import time
from collections.abc import Iterable
from typing import Any

import pytest
from kv_messages import message, stored
from routecore import (
    EndpointInfo,
    EndpointTable,
    ExpectedLatencyRouter,
    Fleet,
    PrefixCacheRouter,
    RequestStatsMonitor,
    new_instance,
)
from routecore.kv_events import KVIndex

URLS = ("http://a", "http://b", "http://c")
PROMPT = "a question about a long document " * 300


def body(text: str = PROMPT) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def serve(fleet: Fleet, texts: Iterable[str]) -> list[str]:
    """Where the requests went, each served before the next."""
    urls = []
    for text in texts:
        with fleet.request(body(text)) as request:
            urls.append(request.url)
            request.first_token()
            request.usage(2000, None, 20)
    return urls


def held(fleet: Fleet) -> list[int]:
    return [fleet.table.core.held(url)[0] for url in URLS]


def engine(fleet: Fleet) -> tuple[Any, ...]:
    """The constants that were learned, without what depends on the time."""
    prefill, step, output, _rate, reuse, sequences = fleet.table.core.engine
    return prefill, step, output, reuse, sequences


def test_caches_are_forgotten_of_one_endpoint_or_of_all_and_speed_is_kept() -> None:
    fleet = Fleet(URLS, params={"seed": 1})
    (home,) = set(serve(fleet, [PROMPT] * 8))
    others = [f"{n} another long one " * 300 for n in range(12)]
    assert set(serve(fleet, others)) == set(URLS)
    learned = engine(fleet)
    before = held(fleet)
    assert all(before)

    fleet.forget(home)
    at = URLS.index(home)
    assert held(fleet) == [0 if n == at else blocks for n, blocks in enumerate(before)]
    fleet.forget()
    assert held(fleet) == [0, 0, 0]
    assert engine(fleet) == learned
    assert fleet.monitor.in_flight == 0


def test_requests_in_flight_stay_and_what_they_prefilled_is_not_counted_as_cached() -> None:
    fleet = Fleet(URLS, params={"seed": 1})
    request = fleet.request(body())
    with request:
        fleet.forget()
        assert fleet.monitor.in_flight == 1
        request.first_token()
    assert fleet.monitor.in_flight == 0
    assert held(fleet) == [0, 0, 0]
    (again,) = set(serve(fleet, [PROMPT] * 3))
    assert held(fleet)[URLS.index(again)] > 0


def test_what_was_learned_goes_too_if_asked_and_a_sick_endpoint_is_in_again() -> None:
    fleet, fresh = Fleet(URLS, params={"seed": 1}), Fleet(URLS, params={"seed": 1})
    serve(fleet, [f"{n} {PROMPT}" for n in range(60)])
    sick = fleet.explain(body()).url
    for n in range(10):
        now = time.monotonic()
        fleet.monitor.on_new_request(sick, str(n), now)
        fleet.monitor.on_request_failed(sick, str(n), now, "connect")
    assert fleet.monitor.standing(sick) is not None
    fleet.forget(sick)
    assert fleet.monitor.standing(sick) is not None  # its cache alone
    fleet.forget(sick, learned=True)
    assert fleet.monitor.standing(sick) is None

    assert engine(fleet) != engine(fresh)
    fleet.forget(learned=True)
    assert engine(fleet) == engine(fresh)


@pytest.mark.parametrize("learned", [False, True])
def test_an_endpoint_that_nobody_knows_is_no_error(learned: bool) -> None:
    table = EndpointTable()
    table.forget("http://nobody", learned=learned)
    table.forget(learned=learned)
    assert len(table) == 0
    monitor = new_instance(RequestStatsMonitor, 60.0, table=table)
    monitor.forget("http://nobody", learned=learned)
    new_instance(PrefixCacheRouter).forget("http://nobody")


def test_a_router_without_our_monitor_forgets_what_it_remembers_itself() -> None:
    router = new_instance(PrefixCacheRouter, seed=1)
    endpoints = [EndpointInfo(url=url) for url in URLS]

    def hits() -> float:
        scores = router.explain(endpoints, {}, {}, None, body()).candidates
        return max(term.value for one in scores for term in one.terms if term.name == "cached")

    for _ in range(3):
        home = router.route_request(endpoints, {}, {}, None, body())
    assert hits() > 0
    router.forget(next(url for url in URLS if url != home))
    assert hits() > 0
    router.forget(home)
    assert hits() == 0


def test_what_engines_reported_by_events_is_forgotten_as_well() -> None:
    index = KVIndex(seed=1)
    tokens = list(range(64))
    for url in URLS:
        index.core.live(url, 0, [(0, message(stored(list(range(16)), None, tokens)))], False)
    router = new_instance(ExpectedLatencyRouter, kv_index=index, prompt_tokens=lambda _body: tokens)
    router.forget(URLS[0])
    assert [found[0] > 0 for found in index.matched(tokens, URLS)] == [False, True, True]
    router.forget()
    assert [found[0] for found in index.matched(tokens, URLS)] == [0, 0, 0]
    assert index.blocks == 0
