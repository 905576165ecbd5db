"""Prefixes and what was learned, between routers: over sockets in a folder, as users have them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from replica_servers import until
from routecore import Fleet
from routecore.replicas import seed_of
from routecore.replicas.keys import SEED, grain_of
from routecore.routers import ROUTERS
from routecore.singleton import new_instance

pytest.importorskip("zmq", reason="the extra `replicas` is not installed")

URLS = tuple(f"http://engine-{n}:8000" for n in range(4))


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets in one folder that are closed after the test."""
    made: list[Fleet] = []

    def make(**settings: object) -> Fleet:
        fleet = Fleet(URLS, "expected_latency", replicas=f"ipc://{tmp_path}/s", **settings)  # type: ignore[arg-type]
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.close()


def body(tenant: str, turns: int = 1) -> dict[str, object]:
    system = f"You are the support agent of {tenant}. " * 400
    asked = [
        {"role": "user", "content": f"question {turn} of {tenant}. " * 60} for turn in range(turns)
    ]
    return {"model": "m", "messages": [{"role": "system", "content": system}, *asked]}


def serve(fleet: Fleet, request: dict[str, object], wait: float = 0.05) -> str:
    """Send it, and have an answer."""
    with fleet.request(request) as sent:
        time.sleep(wait)
        sent.first_token()
        sent.usage(prompt_tokens=3200, cached_tokens=0, completion_tokens=20)
        return str(sent.url)


def test_a_conversation_goes_on_at_the_same_engine_by_whichever_router(
    fleets: Callable[..., Fleet],
) -> None:
    one, two = fleets(), fleets()
    until(lambda: bool(one.replicas.peers and two.replicas.peers), "not heard")  # type: ignore[union-attr]
    homes = {tenant: serve(one, body(tenant)) for tenant in ("acme", "globex", "initech")}
    until(lambda: two.replicas.traffic.placements_heard == 3, "prefixes were not heard")  # type: ignore[union-attr]
    for tenant, home in homes.items():
        assert two.explain(body(tenant, 2)).url == home
        assert serve(two, body(tenant, 2)) == home
    until(lambda: one.replicas.traffic.placements_heard == 3, "prefixes were not heard")  # type: ignore[union-attr]
    assert one.replicas is not None and one.replicas.traffic.placements_unknown == 0


def test_explain_tells_own_requests_from_those_of_others(fleets: Callable[..., Fleet]) -> None:
    one, two = fleets(), fleets()
    sent = one.request(body("acme")).__enter__()
    until(lambda: two.replicas.others(sent.url) == 1, "not heard")  # type: ignore[union-attr]
    parts = {c.url: c.in_flight for c in two.explain(body("acme")).candidates}
    assert parts[sent.url] == (0, 1)
    assert "others" in str(two.explain(body("acme"))).splitlines()[1]
    alone = Fleet(URLS)
    assert alone.explain(body("acme")).candidates[0].in_flight is None


def test_a_router_that_joins_starts_warm(fleets: Callable[..., Fleet]) -> None:
    one = fleets()
    homes = {f"t{n}": serve(one, body(f"t{n}"), 0.2) for n in range(8)}
    two = fleets()
    assert two.replicas is not None
    until(lambda: two.replicas.has_joined, "nothing was taken over")  # type: ignore[union-attr]
    known = [two.explain(body(tenant, 2)).url == home for tenant, home in homes.items()]
    assert sum(known) >= 7, "what engines hold is not known"


def test_who_names_prompts_otherwise_is_ignored_and_its_load_with_it(
    fleets: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = fleets(replicas_secret="a"), fleets(replicas_secret="b")
    serve(one, body("acme"))
    until(lambda: two.replicas.traffic.ignored["grain"] > 0, "nothing was ignored")  # type: ignore[union-attr]
    assert two.replicas is not None and not two.replicas.peers
    assert "cuts prompts otherwise" in caplog.text


def test_a_router_with_a_seed_of_its_own_shares_load_alone(
    tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    router = new_instance(ROUTERS["expected_latency"])
    own = Fleet(URLS, router, replicas=f"ipc://{tmp_path}/s")
    one = fleets()
    try:
        serve(one, body("acme"))
        sent = one.request(body("acme")).__enter__()
        assert own.replicas is not None
        until(lambda: own.replicas.others(sent.url) == 1, "not heard")  # type: ignore[union-attr]
        assert own.replicas.traffic.placements_heard == 0
    finally:
        own.close()


def test_keys_are_the_same_everywhere_and_a_secret_changes_all() -> None:
    assert seed_of(None) == seed_of("") == SEED == 0x726F757465636F72
    assert seed_of("secret") == 0xDCB0362A9CB0976F
    grains = {grain_of((seed_of(word), 128, 16)) for word in (None, "a", "b")}
    assert len(grains) == 3 and grain_of(None) == 0 and 0 not in grains
    assert grain_of((SEED, 128, 16)) != grain_of((SEED, 64, 16))


def test_metrics_show_who_is_heard(fleets: Callable[..., Fleet]) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    from routecore.integrations.shared.replica_metrics import ReplicaMetrics

    registry = prometheus.CollectorRegistry()
    registry.register(ReplicaMetrics())
    assert b"routecore_replica" not in prometheus.generate_latest(registry)
    one, two = fleets(), fleets()
    serve(one, body("acme"))
    until(lambda: two.replicas.traffic.placements_heard == 1, "not heard")  # type: ignore[union-attr]
    # Both are of this process, and each hears the other.
    peers = registry.get_sample_value
    until(lambda: peers("routecore_replica_peers", {"group": "default"}) == 2, "not heard")
    for name in (
        'routecore_replica_age_seconds{group="default",peer="',
        'routecore_replica_bytes_total{direction="sent",group="default"}',
        'routecore_replica_conflicts_total{group="default"} 0.0',
        'routecore_replica_ignored_messages_total{group="default",reason="malformed"} 0.0',
        'routecore_replica_placements_total{group="default",outcome="heard"}',
        'routecore_replica_channel_down{group="default"} 0.0',
        'routecore_replica_doubted_endpoints{group="default"} 0.0',
        'routecore_replica_hints_total{group="default",outcome="confirmed"} 0.0',
    ):
        until(lambda n=name: n in prometheus.generate_latest(registry).decode(), name)  # type: ignore[misc]


def test_workers_of_one_machine_get_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from routecore.integrations.shared.replicas import among_workers
    from routecore.integrations.shared.settings import Settings

    made = among_workers(Settings())
    assert made.replicas is not None and made.replicas.startswith("zmq+ipc:///")
    folder = Path(made.replicas.removeprefix("zmq+ipc://"))
    assert folder.stat().st_mode & 0o77 == 0
    named = Settings(replicas="redis://a")
    assert among_workers(named) is named
