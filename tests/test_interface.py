"""The documented interface: singletons, session ids, and what import costs."""

import inspect
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from routecore import (
    EndpointInfo,
    EndpointTable,
    PrefixCacheRouter,
    RequestStatsMonitor,
    RouteError,
    RoutingInterface,
    SingletonABCMeta,
    new_instance,
)
from routecore.interface import Endpoint


class First(RoutingInterface):
    """Takes the first endpoint."""

    def __init__(self, name="one"):
        self.name = name

    def route_request(self, endpoints, engine_stats, request_stats, request):
        return endpoints[0].url


def request(headers):
    return SimpleNamespace(headers=headers)


def keyed(session_key):
    router = First()
    router.session_key = session_key
    return router


def test_a_class_has_one_instance_and_the_first_parameters_hold():
    first = First("kept")
    assert First() is first
    assert First("kept") is first
    with pytest.warns(RuntimeWarning, match="First is a singleton .*new_instance"):
        assert First("other").name == "kept"
    assert SingletonABCMeta._instances[First] is first


def test_another_router_of_ours_by_the_same_name_is_refused_not_ignored():
    first = PrefixCacheRouter(load_factor=1.5)
    assert PrefixCacheRouter() is first
    assert PrefixCacheRouter(load_factor=1.5) is first
    for other in ({"load_factor": 3.0}, {"min_match_tokens": 8.0}, {"totally_wrong": 1}):
        with pytest.raises(RouteError, match="PrefixCacheRouter is a singleton"):
            PrefixCacheRouter(**other)


def test_defaults_given_by_name_are_no_other_arguments():
    first = PrefixCacheRouter()
    assert PrefixCacheRouter(load_factor=1.25) is first
    monitor = RequestStatsMonitor(60.0)
    assert RequestStatsMonitor(sliding_window_size=60.0, lease_timeout=600.0) is monitor
    with pytest.raises(RouteError, match="RequestStatsMonitor is a singleton"):
        RequestStatsMonitor(5.0)


def test_a_second_instance_can_be_had_and_is_nobody_elses():
    first = PrefixCacheRouter(load_factor=1.5)
    second = new_instance(PrefixCacheRouter, load_factor=3.0)
    assert second is not first
    assert PrefixCacheRouter() is first
    table = EndpointTable()
    monitor = new_instance(RequestStatsMonitor, 5.0, table=table)
    monitor.on_new_request("http://e", "1", 1.0)
    assert (monitor.in_flight, RequestStatsMonitor(60.0).in_flight) == (1, 0)


def test_help_shows_what_a_router_takes():
    assert "load_factor: float = 1.25" in str(inspect.signature(PrefixCacheRouter))
    assert "block_tokens: int = 16" in str(inspect.signature(PrefixCacheRouter))
    with pytest.raises(TypeError, match="unexpected keyword argument 'block_token'"):
        new_instance(PrefixCacheRouter, block_token=16)  # type: ignore[call-arg]
    assert str(inspect.signature(First)) == "(name='one')"
    assert "lease_timeout: float" in str(inspect.signature(RequestStatsMonitor))


def test_a_subclass_is_not_its_parent():
    class Second(First):
        pass

    assert Second() is not First()


def test_clearing_the_registry_starts_anew():
    first = First()
    SingletonABCMeta._instances.clear()
    assert First() is not first


def test_an_instance_put_into_the_registry_is_what_the_class_gives():
    seeded = type.__call__(First, "seeded")
    SingletonABCMeta._instances[First] = seeded
    assert First() is seeded


def test_threads_that_construct_at_once_get_one_instance():
    made = []

    class Slow(First):
        def __init__(self):
            time.sleep(0.02)
            made.append(self)

    threads = [threading.Thread(target=Slow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_constructor_that_fails_leaves_nothing_behind():
    class Picky(First):
        def __init__(self, ok=False):
            if not ok:
                raise RouteError("not ok")

    with pytest.raises(RouteError):
        Picky()
    assert isinstance(Picky(ok=True), Picky)


def test_the_interface_itself_cannot_be_constructed():
    with pytest.raises(TypeError, match="route_request"):
        RoutingInterface()


def test_a_host_may_set_what_it_likes_and_finds_its_defaults():
    router = First()
    assert router.max_instance_failover_reroute_attempts == 0
    assert router.session_key is None
    router.max_instance_failover_reroute_attempts = 2
    router.anything = "at all"


def test_route_error_is_a_value_error():
    assert issubclass(RouteError, ValueError)


def test_an_endpoint_is_anything_with_a_url():
    endpoint: Endpoint = EndpointInfo("http://e")
    assert First().route_request([endpoint], None, {}, None) == "http://e"


def test_the_header_goes_before_the_body():
    router = keyed("x-session-id")
    assert router.extract_session_id(request({"x-session-id": "h"}), {"x-session-id": "b"}) == "h"
    assert router.extract_session_id(request({}), {"x-session-id": "b"}) == "b"
    assert router.extract_session_id(request({"x-session-id": ""}), {"x-session-id": 7}) == "7"


def test_a_plain_dict_of_headers_is_read_in_any_case():
    assert keyed("x-session-id").extract_session_id(request({"X-Session-Id": "h"})) == "h"


def test_without_a_session_key_there_is_no_session():
    assert First().extract_session_id(request({"x-session-id": "h"}), {}) is None


@pytest.mark.parametrize("body", [None, [], "x", 5, {}, {"x-session-id": None}])
@pytest.mark.parametrize("bare", [None, object(), request(None), request({}), request(5)])
def test_strange_requests_have_no_session_and_raise_nothing(bare, body):
    assert keyed("x-session-id").extract_session_id(bare, body) is None


def test_import_brings_nothing_heavy():
    heavy = "{'numpy', 'httpx', 'prometheus_client', 'asyncio', 'rich', 'click', 'aiohttp'}"
    code = f"import sys, routecore; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
