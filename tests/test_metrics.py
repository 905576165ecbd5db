"""Readings of engines' metrics: each engine's names, and which series repeat or add."""

import pytest
from routecore.endpoints.metrics import read_metrics

VLLM = 'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_waiting{engine="0"} 2\n'


def test_vllm_under_names_of_exporters_and_older_versions() -> None:
    text = (
        'vllm_num_requests_running 3\nvllm:num_requests_waiting_by_reason{reason="x"} 9\n'
        "vllm:num_requests_waiting 1\nvllm_prefix_cache_hits_total 5\n"
        "vllm:prefix_cache_queries 9\n"
    )
    reading = read_metrics(text)
    assert (reading.running, reading.queuing, reading.hits, reading.queries) == (3, 1, 5, 9)


def test_a_counter_with_and_without_total_counts_once() -> None:
    reading = read_metrics("vllm:prefix_cache_hits_total 5\nvllm:prefix_cache_hits 5\n")
    assert reading.hits == 5


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('num_gpu_blocks="100",block_size="16"', 1600),
        ('num_gpu_blocks="3750",block_size="4",kv_cache_size_tokens="983040"', 983040),
        ('num_gpu_blocks="100",block_size="16",kv_cache_size_tokens="None"', 1600),
        ('num_gpu_blocks="None",block_size="16"', None),
    ],
)
def test_vllms_cache_size_is_what_it_says_or_blocks_times_block_size(
    labels: str, tokens: float | None
) -> None:
    text = VLLM + f"vllm:cache_config_info{{{labels}}} 1.0\n"
    assert read_metrics(text).kv_tokens == tokens


def test_ranks_add_and_processes_repeat() -> None:
    info = 'vllm:cache_config_info{{engine="{}",pid="{}",num_gpu_blocks="10",block_size="16"}} 1'
    usage = 'vllm:kv_cache_usage_perc{{engine="{}",pid="{}"}} {}'
    hits = 'vllm:prefix_cache_hits_total{{engine="{}",pid="{}"}} {}'
    lines = [info.format(e, p) for e in (0, 1) for p in (7, 8)]
    lines += [usage.format(0, 7, 0), usage.format(0, 8, 0.6), usage.format(1, 7, 0.2)]
    lines += [hits.format(0, 7, 4), hits.format(0, 8, 5)]
    reading = read_metrics("\n".join(lines))
    assert reading.kv_tokens == 320
    assert reading.usage == pytest.approx(0.4)
    assert reading.hits == 9


def test_sglang_tp_ranks_repeat_dp_ranks_add_and_priorities_are_parts() -> None:
    lines = []
    for dp in (0, 1):
        for tp in (0, 1, 2):
            where = f'dp_rank="{dp}",tp_rank="{tp}",model_name="m"'
            lines += [
                f'sglang:num_running_reqs{{{where},priority=""}} {4 + dp}',
                f'sglang:num_running_reqs{{{where},priority="1"}} 3',
                f"sglang:num_queue_reqs{{{where}}} 1",
                f"sglang:token_usage{{{where}}} {0.3 + 0.2 * dp}",
                f"sglang:max_total_num_tokens{{{where}}} 60000",
                f"sglang:cache_hit_rate{{{where}}} 0.5",
            ]
    lines += ['sglang:cached_tokens_total{cache_source="device"} 30']
    lines += [
        'sglang:cached_tokens_total{cache_source="host"} 10',
        "sglang:prompt_tokens_total 100",
    ]
    reading = read_metrics("\n".join(lines))
    assert (reading.running, reading.queuing, reading.kv_tokens) == (9, 2, 120_000)
    assert (reading.hits, reading.queries, reading.hit_rate) == (40, 100, 0.5)
    assert reading.usage == pytest.approx(0.4)


def test_tgi() -> None:
    reading = read_metrics("tgi_batch_current_size 5\ntgi_queue_size 3\ntgi_request_count 150\n")
    assert (reading.running, reading.queuing, reading.usage) == (5, 3, None)


def test_tensorrt_llm_by_its_own_server_and_by_triton() -> None:
    own = read_metrics(
        "trtllm_num_requests_running 3.0\ntrtllm_num_requests_waiting 1\n"
        "trtllm_kv_cache_utilization 0.62\ntrtllm_kv_cache_hit_rate 0.4\n"
        "trtllm_kv_cache_max_blocks 1000\ntrtllm_kv_cache_tokens_per_block 32\n"
    )
    assert (own.running, own.queuing, own.usage, own.hit_rate) == (3, 1, 0.62, 0.4)
    assert own.kv_tokens == 32_000
    request, block = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
    triton = read_metrics(
        f'{request}{{model="t",request_type="scheduled"}} 3\n'
        f'{request}{{model="t",request_type="active"}} 5\n'
        f'{request}{{model="t",request_type="waiting"}} 2\n'
        f'{block}{{kv_cache_block_type="tokens_per"}} 64\n'
        f'{block}{{kv_cache_block_type="max"}} 100\n'
        f'{block}{{kv_cache_block_type="fraction"}} 0.25\n'
    )
    assert (triton.running, triton.queuing, triton.usage, triton.kv_tokens) == (3, 2, 0.25, 6400)


def test_a_size_alone_is_no_reading() -> None:
    with pytest.raises(ValueError, match="no metric"):
        read_metrics('vllm:cache_config_info{num_gpu_blocks="1",block_size="16"} 1\n')
