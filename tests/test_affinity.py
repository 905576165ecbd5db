"""Sessions and prompts find their home, wherever they are asked."""

import gzip
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import (
    EndpointInfo,
    PrefixAffinityRouter,
    RequestStatsMonitor,
    SessionAffinityRouter,
    SingletonABCMeta,
)
from routecore.endpoints.table import EndpointTable

TRACE = Path(__file__).parents[2] / "shared/traces/mooncake_conversation_trace.jsonl.gz"


def fleet(n: int) -> list[EndpointInfo]:
    return [EndpointInfo(url=f"http://e{i}") for i in range(n)]


def prefix(**options: Any) -> PrefixAffinityRouter:
    SingletonABCMeta._instances.clear()
    return PrefixAffinityRouter(**options)


def home_of(body: Any, n: int = 16) -> str:
    """The home of a prompt, asked of a router that has seen nothing else."""
    return prefix(seed=0).route_request(fleet(n), {}, {}, None, body)


@pytest.mark.parametrize("method", ["rendezvous", "ring"])
def test_changes_of_the_fleet_move_few_sessions(method: Any) -> None:
    router = SessionAffinityRouter(method=method)

    def homes(n: int) -> list[str]:
        keys = (SimpleNamespace(headers={"x-session-id": f"s{i}"}) for i in range(4000))
        return [router.route_request(fleet(n), {}, {}, key) for key in keys]

    eight, nine = homes(8), homes(9)
    moved = [(a, b) for a, b in zip(eight, nine, strict=True) if a != b]
    assert {b for _, b in moved} == {"http://e8"}  # removing e8 moves only its own
    assert len(moved) / 4000 <= 1 / 9 + 0.02
    assert max(Counter(eight).values()) < 2 * 4000 / 8


def test_the_session_is_read_from_header_or_body_and_explained() -> None:
    router = SessionAffinityRouter(session_key="sid", method="ring")
    by_header = router.route_request(fleet(8), {}, {}, SimpleNamespace(headers={"sid": "42"}))
    by_body = router.route_request(fleet(8), {}, {}, None, {"sid": 42})
    explained = router.explain(fleet(8), {}, {}, None, {"sid": "42"})
    assert by_header == by_body == explained.url
    assert max(explained.candidates, key=lambda c: c.score).url == explained.url


@pytest.mark.parametrize("method", ["rendezvous", "ring"])
def test_a_hot_session_spills_within_the_bound(method: Any) -> None:
    monitor = RequestStatsMonitor(60.0, table=EndpointTable())
    router = SessionAffinityRouter(method=method, load_factor=1.25)
    request, stats = SimpleNamespace(headers={"x-session-id": "hot"}), monitor.get_request_stats(0)
    chosen = Counter(router.route_request(fleet(4), {}, stats, request) for _ in range(400))
    assert max(chosen.values()) <= 1.25 * 401 / 4 + 1


def test_placement_is_golden() -> None:
    """Pinned on release 0.1.0: URLs http://e0 to e15, an idle fleet, default parameters."""
    text = "You are a helpful assistant. " * 40
    assert home_of({"model": "m", "prompt": text}) == "http://e9"
    assert home_of({"model": "m", "messages": [{"role": "user", "content": text}]}) == "http://e10"
    assert home_of({"prompt": [1, 2, 3] * 100}) == "http://e8"
    router = SessionAffinityRouter()
    homes = [
        router.route_request(fleet(16), {}, {}, SimpleNamespace(headers={"x-session-id": s}))
        for s in ("alice", "bob", "carol")
    ]
    assert homes == ["http://e10", "http://e2", "http://e3"]


def test_equal_heads_share_a_home_and_seeds_part_them() -> None:
    head = "shared system prompt " * 50
    homes = {home_of({"model": "m", "prompt": head + str(i)}) for i in range(20)}
    assert len(homes) == 1
    for name in ("model", "lora_name", "cache_salt"):
        assert len({home_of({name: f"v{i}", "prompt": head}) for i in range(20)}) > 5


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ""},
        {"prompt": "lone \ud800 surrogate" * 100},
        {"prompt": "x" * 10_000_000},
        {"prompt": "語" * 1_000_000},
        {"prompt": ["a", "b"]},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [2**70, -5]]},
        {"messages": [{"role": "user", "content": "hi"}] * 10_000},
        {"messages": [{"content": [{"type": "text", "text": "hi"}, {"image_url": {"url": "x"}}]}]},
        {"messages": "not a list", "tools": 3, "system": None},
        {"input": "embed me"},
        {"input": [{"role": "user", "content": "hi"}]},
        {"query": "rerank", "documents": []},
        {},
        None,
        "text",
        [1, 2],
        b"bytes",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_any_body_is_routed(body: Any) -> None:
    router = prefix()
    for _ in range(2):
        assert router.route_request(fleet(3), {}, {}, None, body).startswith("http://e")
    assert router.explain(fleet(3), {}, {}, None, body).url.startswith("http://e")


def test_a_body_nested_beyond_reason_is_routed() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert prefix().route_request(fleet(3), {}, {}, None, {"prompt": deep}).startswith("http://e")
    while isinstance(deep, list):  # unwound by hand: freeing it at once would recurse in C
        deep = deep.pop()


@pytest.mark.parametrize(
    ("raw", "same_as"),
    [
        (b'{"prompt": "hello there"}', {"prompt": "hello there"}),
        (b'{"prompt": "\\ud800"}', {"prompt": "\ud800"}),
        (b'{"prompt"', None),
        (b"\xff\xfe", None),
    ],
)
def test_the_cached_body_of_a_request_is_read(raw: bytes, same_as: Any) -> None:
    router = prefix(seed=5)
    found = router.explain(fleet(8), {}, {}, SimpleNamespace(headers={}, _body=raw))
    assert found == router.explain(fleet(8), {}, {}, None, same_as)


def spread_of(prompts: list[str], n: int) -> float:
    """Largest share of requests over the mean share, on a fleet where each request lasts."""
    router, monitor = prefix(seed=1), RequestStatsMonitor(60.0, table=EndpointTable())
    endpoints, live, chosen = fleet(n), [], Counter[str]()
    for i, prompt in enumerate(prompts):
        stats = monitor.get_request_stats(float(i))
        url = router.route_request(endpoints, {}, stats, None, {"prompt": prompt})
        chosen[url] += 1
        monitor.on_new_request(url, str(i), float(i))
        live.append((url, str(i)))
        if len(live) > 32:
            monitor.on_request_complete(*live.pop(0), float(i))
    return max(chosen.values()) * n / len(prompts)


def test_a_first_block_that_all_share_does_not_make_one_endpoint_hot() -> None:
    head = "You are ChatBot, a helpful assistant. " * 55
    prompts = [f"{head}{i % 200}: " + "and so on " * 80 for i in range(3000)]
    assert spread_of(prompts, 8) < 1.6


def test_depth_adapts_without_the_load_bound() -> None:
    router = prefix(seed=1, load_factor=1e6)
    head = "You are ChatBot, a helpful assistant. " * 55
    bodies = [{"prompt": f"{head}{i % 200}: " + "and so on " * 800} for i in range(3000)]
    chosen = Counter(router.route_request(fleet(8), {}, {}, None, body) for body in bodies)
    assert max(chosen.values()) < 3 * 3000 / 8


def test_the_conversation_trace_is_spread() -> None:
    if not TRACE.exists():
        pytest.skip(f"the conversation trace is not at {TRACE}")
    with gzip.open(TRACE, "rt") as lines:
        rows = [json.loads(line) for _, line in zip(range(3000), lines, strict=False)]
    prompts = ["".join(f"{block:08d}" * 32 for block in row["hash_ids"][:64]) for row in rows]
    assert len({p[:256] for p in prompts}) == 1
    assert spread_of(prompts, 8) < 1.6
