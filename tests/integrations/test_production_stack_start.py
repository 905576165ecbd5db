"""How production-stack comes to use us, at its start and after a reload; against a stand-in."""

from pathlib import Path
from typing import Any

import pytest
from production_stack_host import (
    BODY,
    CALLBACKS,
    URLS,
    good,
    run,
    subprocess_says,
)


@pytest.mark.parametrize(
    "logic",
    [
        "roundrobin",
        "session",
        "kvaware",
        "prefixaware",
        "disaggregated_prefill",
        "disaggregated_prefill_orchestrated",
    ],
)
def test_the_host_builds_our_router_whatever_its_logic(stand_in: Any, logic: str) -> None:
    flags = {"prefill_model_labels": ["p"], "decode_model_labels": ["d"], "session_key": "user"}
    app = stand_in.start(logic, CALLBACKS, URLS, max_instance_failover_reroute_attempts=2, **flags)
    router = app.state.router
    host_class = next(c for c in type(router).__mro__ if c.__module__.startswith("vllm_router"))
    assert type(router).__name__ == host_class.__name__
    assert type(router).__module__.startswith("routecore.")
    assert router.max_instance_failover_reroute_attempts == 2
    assert app.state.request_stats_monitor.in_flight == 0
    if logic == "session":
        assert router.session_key == "user"


def test_the_flags_of_the_command_line_reach_our_router(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS, prefix_min_match_length=4096)
    assert app.state.router.prefix_min_match_length == 4096


def test_a_reload_keeps_us_with_what_it_forgets_and_what_we_learned(stand_in: Any) -> None:
    flags = {"max_instance_failover_reroute_attempts": 3, "prefix_min_match_length": 128}
    app = stand_in.start("prefixaware", CALLBACKS, URLS, **flags)
    run(stand_in.handle(BODY, "before", good))  # the router is seen to be ours
    before = app.state.router
    stand_in.reload("prefixaware", CALLBACKS, URLS[:2])
    after = app.state.router
    assert after is not before
    assert after.decision is before.decision
    assert after.max_instance_failover_reroute_attempts == 3
    assert after.prefix_min_match_length == 128
    assert run(stand_in.handle(BODY, "after", good)) in URLS[:2]


def test_a_reload_may_change_the_logic(stand_in: Any) -> None:
    from routecore.integrations import production_stack as ours

    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    stand_in.reload("session", CALLBACKS, URLS, session_key="user")
    assert isinstance(app.state.router, ours.SessionRouter)
    assert stand_in.routing_logic.get_routing_logic() is app.state.router


def test_a_router_that_the_host_built_before_us_is_replaced(stand_in: Any) -> None:
    # As the watcher of the dynamic configuration does when it is faster than the start.
    from vllm_router.stats import request_stats

    request_stats.RequestStatsMonitor(30.0)
    theirs = stand_in.routing_logic.initialize_routing_logic(
        "prefixaware", prefix_min_match_length=7, max_instance_failover_reroute_attempts=1
    )
    stand_in.app.state.router = theirs
    stand_in._callbacks(CALLBACKS)
    ours = stand_in.app.state.router
    assert ours is not theirs
    assert ours is stand_in.routing_logic.get_routing_logic()
    assert (ours.prefix_min_match_length, ours.max_instance_failover_reroute_attempts) == (7, 1)
    assert request_stats.get_request_stats_monitor().sliding_window_size == 30.0


def test_a_router_of_the_hosts_own_is_replaced_at_the_next_request(stand_in: Any) -> None:
    from routecore.integrations.production_stack import install

    app = stand_in.start("roundrobin", CALLBACKS, URLS)
    app.state.router = type.__call__(install._theirs["RoundRobinRouter"])
    run(stand_in.handle(BODY, "1", good))
    assert type(app.state.router) is install.ROUTERS[0]


def test_a_router_that_the_embedding_program_set_is_left_alone(stand_in: Any) -> None:
    app = stand_in.start("roundrobin", CALLBACKS, URLS)

    class Theirs:
        max_instance_failover_reroute_attempts = 0

        def route_request(self, *_: Any) -> str:
            return URLS[3]

    app.state.router = Theirs()
    assert [run(stand_in.handle(BODY, str(n), good)) for n in range(3)] == [URLS[3]] * 3
    assert app.state.request_stats_monitor.in_flight == 0


def test_asking_for_the_callbacks_again_changes_nothing(stand_in: Any) -> None:
    from routecore.integrations import production_stack as ours

    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    router, monitor = app.state.router, app.state.request_stats_monitor
    assert ours.callbacks is ours.callbacks
    assert (app.state.router, app.state.request_stats_monitor) == (router, monitor)
    with pytest.raises(AttributeError, match="no attribute 'callback'"):
        _ = ours.callback


def test_a_closed_router_goes_on_working(stand_in: Any) -> None:
    app = stand_in.start("prefixaware", CALLBACKS, URLS)
    app.state.router.close()
    app.state.router.close()
    assert run(stand_in.handle(BODY, "1", good)) in URLS


def test_static_endpoints_are_made_once_and_again_when_health_changes(stand_in: Any) -> None:
    stand_in.start("prefixaware", CALLBACKS, URLS)
    discovery = stand_in.service_discovery._global_service_discovery
    first, second = discovery.get_endpoint_info(), discovery.get_endpoint_info()
    assert first is not second
    assert all(a is b for a, b in zip(first, second, strict=True))
    discovery.unhealthy_endpoint_hashes = [URLS[0]]
    assert [e.url for e in discovery.get_endpoint_info()] == URLS[1:]


def test_without_the_host_the_error_says_what_to_install(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.startswith('vllm_router') else find(n, *a)\n"
    )
    said = subprocess_says(hide + "import routecore.integrations.production_stack", tmp_path)
    assert "ImportError: production-stack's vllm_router is not installed: install" in said


def test_the_other_package_of_the_same_name_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "vllm_router").mkdir()
    (tmp_path / "vllm_router" / "__init__.py").write_text("")
    said = subprocess_says("import routecore.integrations.production_stack", tmp_path)
    assert "ImportError: the vllm_router that is installed is not production-stack's" in said
