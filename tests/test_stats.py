"""The documented data types: names, defaults, and what is derived."""

import msgspec
import pytest
from routecore import EndpointInfo, EngineStats, RequestStats


def test_active_connections_is_running_and_queuing_unless_it_is_given():
    assert EngineStats(num_running_requests=3, num_queuing_requests=2).active_connections == 5
    assert EngineStats(num_running_requests=3, active_connections=0).active_connections == 0
    assert EngineStats().active_connections == 0


def test_a_stat_of_none_is_kept_so_that_routers_can_take_it_as_unknown():
    stats = EngineStats(num_running_requests=None)  # type: ignore[arg-type]
    assert stats.num_running_requests is None
    assert stats.active_connections is None


def test_a_decoded_stat_has_its_active_connections_too():
    decoded = msgspec.json.decode(b'{"num_running_requests": 2}', type=EngineStats)
    assert decoded.active_connections == 2


def test_fields_are_those_of_production_stack_in_its_order():
    assert EndpointInfo.__struct_fields__ == (
        *("url", "model_names", "Id", "added_timestamp", "model_label", "sleep", "healthy"),
        *("pod_name", "service_name", "namespace", "model_info"),
    )
    assert EngineStats.__struct_fields__ == (
        *("num_running_requests", "num_queuing_requests", "gpu_prefix_cache_hit_rate"),
        *("gpu_prefix_cache_hits_total", "gpu_prefix_cache_queries_total"),
        *("gpu_cache_usage_perc", "active_connections"),
    )
    assert RequestStats.__struct_fields__ == (
        *("qps", "ttft", "in_prefill_requests", "in_decoding_requests", "finished_requests"),
        *("uptime", "avg_decoding_length", "avg_latency", "avg_itl", "num_swapped_requests"),
    )


def test_what_was_never_measured_is_minus_one():
    stats = RequestStats()
    assert (stats.ttft, stats.avg_decoding_length, stats.avg_latency, stats.avg_itl) == (-1,) * 4


@pytest.mark.parametrize("stats", [EndpointInfo("http://e"), EngineStats(), RequestStats()])
def test_stats_are_frozen_so_that_routers_may_remember_them(stats):
    with pytest.raises(AttributeError):
        setattr(stats, stats.__struct_fields__[0], 1)


def test_an_endpoint_needs_only_a_url_and_is_awake_and_healthy():
    endpoint = EndpointInfo("http://e")
    assert endpoint.healthy
    assert not endpoint.sleep
