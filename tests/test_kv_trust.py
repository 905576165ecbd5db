"""Events that answers contradict are no longer believed, and are again once they are borne out."""

import logging
from typing import Any

import pytest
from kv_messages import stored
from routecore import EndpointInfo, EndpointTable, PrefixCacheRouter, RequestStatsMonitor
from test_kv_index import A, Feed

PROMPT = list(range(1000, 1200))
BODY = {"model": "m", "prompt": PROMPT}


class Desk:
    """A router with events and a monitor; requests are served one after the other."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.monitor: Any = type.__call__(RequestStatsMonitor, 60.0, table=EndpointTable())
        index = self.feed.index
        self.router: Any = type.__call__(PrefixCacheRouter, seed=1, kv_index=index)
        self.endpoints = [EndpointInfo(url=A)]
        self.clock, self.sent = 1000.0, 0

    def serve(self, cached: int | None, body: dict[str, Any] = BODY) -> None:
        """One request, of which the engine found so much in its cache."""
        self.sent += 1
        self.clock += 1.0
        name = f"r{self.sent}"
        stats = self.monitor.get_request_stats(self.clock)
        self.router.route_request(self.endpoints, {}, stats, None, body)
        self.monitor.on_new_request(A, name, self.clock)
        self.monitor.on_request_response(A, name, self.clock + 0.1)
        if cached is not None:
            self.monitor.on_usage(A, name, len(body["prompt"]), cached, 5)
        self.monitor.on_request_complete(A, name, self.clock + 0.2)

    def cached(self, body: dict[str, Any] = BODY) -> float:
        """Tokens that the endpoint is credited with."""
        stats = self.monitor.get_request_stats(self.clock)
        found = self.router.explain(self.endpoints, {}, stats, None, body)
        return {term.name: term.value for term in found.candidates[0].terms}["cached"]

    def tell(self, tokens: list[int]) -> None:
        """The engine says that it holds these."""
        hashes = [hash(tuple(tokens[: 4 * (i + 1)])) for i in range(len(tokens) // 4)]
        self.feed.send(stored(hashes, None, tokens[: 4 * len(hashes)]))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_promises_that_are_not_kept_end_belief_with_one_line(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.tell(PROMPT)
    for _ in range(7):
        desk.serve(0)
    assert desk.feed.index.is_exact(A) and desk.cached() > 190
    for _ in range(20):
        desk.serve(0)
    assert not desk.feed.index.is_exact(A)
    assert desk.feed.count("disbelieved") == 1
    said = [r.getMessage() for r in caplog.records if "no longer believed" in r.getMessage()]
    assert len(said) == 1 and A in said[0] and "promise more" in said[0]
    with caplog.at_level(logging.INFO, "routecore.kv_events"):
        for _ in range(16):
            desk.serve(196)
    assert desk.feed.index.is_exact(A) and "believed again" in caplog.text


def test_what_was_found_and_never_promised_lets_history_count(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.tell(list(range(50)))  # other tokens than the router's
    desk.serve(0)
    assert desk.cached() == 0
    for _ in range(8):
        desk.serve(192)
    assert desk.cached() > 180
    assert "tokenizer or chat template" in caplog.text


def test_without_usage_events_that_never_match_are_not_believed_either(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.tell(list(range(50)))
    for _ in range(32):
        desk.serve(None)
    assert desk.cached() == 0
    desk.serve(None)
    assert desk.cached() > 180 and "match nothing" in caplog.text
    desk.tell(PROMPT)
    desk.serve(None)
    assert desk.feed.index.is_exact(A)


def test_kept_promises_and_fresh_prompts_leave_belief_alone(desk: Desk) -> None:
    desk.tell(PROMPT)
    for k in range(50):
        desk.serve(196)
        desk.serve(0, {"model": "m", "prompt": list(range(5000 + 300 * k, 5200 + 300 * k))})
    assert desk.feed.index.is_exact(A) and desk.feed.count("disbelieved") == 0
