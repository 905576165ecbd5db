"""Data-parallel ranks as endpoints: names, metrics, KV events, a live fleet."""

import asyncio
import time
from collections.abc import Iterator

import aiohttp
import pytest
from routecore import EndpointTable, EngineStatsScraper, Fleet, RouteError, new_instance
from routecore.demo.engine import Engine as Simulated
from routecore.demo.runner import run
from routecore.demo.scheduler import Scheduler
from routecore.demo.serving import serve
from routecore.demo.traffic import conversations
from routecore.endpoints.metrics import read_metrics
from routecore.endpoints.ranks import HEADER, endpoint_of, rank_of, with_ranks
from routecore.integrations.shared.engine_caches import _source
from routecore.integrations.shared.settings import Settings
from routecore.kv_events import KVSource
from test_scraper import Engine

VLLM = """\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 200.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 10.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 160.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="3000"} 1.0
"""
SGLANG = """\
sglang:num_running_reqs{dp_rank="0",model_name="m",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="0",model_name="m",tp_rank="1"} 2.0
sglang:num_running_reqs{dp_rank="1",model_name="m",tp_rank="0"} 7.0
sglang:num_queue_reqs{dp_rank="0",model_name="m",tp_rank="0"} 1.0
sglang:num_queue_reqs{dp_rank="1",model_name="m",tp_rank="0"} 4.0
sglang:max_total_num_tokens{model_name="m"} 5000.0
"""


@pytest.mark.parametrize(
    ("endpoint", "address", "rank"),
    [
        ("http://e:8000@1", "http://e:8000", 1),
        ("http://e:8000/@0", "http://e:8000/", 0),
        ("https://user:pass@e:8000", "https://user:pass@e:8000", None),
        ("https://user:pass@e:8000@12", "https://user:pass@e:8000", 12),
        ("http://[::1]:8000@3", "http://[::1]:8000", 3),
        ("10.0.0.1:8000@2", "10.0.0.1:8000", 2),
        ("http://e:8000", "http://e:8000", None),
        ("http://e:8000@", "http://e:8000@", None),
        ("http://e:8000@-1", "http://e:8000@-1", None),
        ("http://e:8000@12345", "http://e:8000@12345", None),
        ("@1", "@1", None),
    ],
)
def test_names_are_taken_apart(endpoint: str, address: str, rank: int | None) -> None:
    assert rank_of(endpoint) == (address, rank)
    assert rank_of(endpoint).headers == ({} if rank is None else {HEADER: str(rank)})
    if rank is not None:
        assert endpoint_of(address, rank) == endpoint


def test_ranks_of_engines_are_named() -> None:
    assert list(with_ranks(["http://a", "http://b"], 2)) == [
        *("http://a@0", "http://a@1"),
        *("http://b@0", "http://b@1"),
    ]
    for urls, ranks in ((["http://a"], 0), (["http://a"], 1025), (["http://a@1"], 2)):
        with pytest.raises(RouteError, match="expected"):
            list(with_ranks(urls, ranks))


def test_each_rank_has_figures_of_its_own() -> None:
    one = read_metrics(VLLM, rank=1)
    assert (one.running, one.queuing, one.usage, one.kv_tokens) == (5, 0, 0.75, 48_000)
    assert (one.queries, one.hits) == (200, 160)
    other = read_metrics(SGLANG, rank=0)
    assert (other.running, other.queuing, other.kv_tokens) == (2, 1, 5000)
    assert read_metrics(SGLANG).running == 9
    with pytest.raises(ValueError, match="no metric of rank 2"):
        read_metrics(VLLM, rank=2)


def test_an_engine_without_such_labels_tells_of_each_rank_alike() -> None:
    plain = VLLM.replace('engine="0",', "").splitlines()[0]
    assert read_metrics(plain, rank=3).running == 3


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(VLLM)
    yield made
    made.stop()


def test_an_engine_is_asked_once_for_all_of_its_ranks(engine: Engine) -> None:
    asked = 0
    table = EndpointTable()
    urls = [*with_ranks([engine.url], 3)]
    scraper = new_instance(EngineStatsScraper, urls, table=table)
    fetch = scraper._http.fetch

    async def counted(client: object, url: str) -> str:
        nonlocal asked
        asked += 1
        return await fetch(client, url)  # type: ignore[arg-type]

    scraper._http.fetch = counted  # type: ignore[method-assign]
    scraper.scrape_once()
    stats = scraper.get_engine_stats()
    assert asked == 1
    assert stats[urls[0]].num_running_requests == 3
    assert stats[urls[1]].num_running_requests == 5
    assert urls[2] not in stats  # there is no rank 2
    assert scraper.failures == 1
    assert table.core.column("kv_capacity_tokens")[table.add(urls[1])] == 48_000
    scraper.close()


def test_an_engine_and_one_of_its_ranks_are_two_endpoints(engine: Engine) -> None:
    scraper = new_instance(
        EngineStatsScraper, [engine.url, f"{engine.url}@1"], table=EndpointTable()
    )
    scraper.scrape_once()
    stats = scraper.get_engine_stats()
    assert stats[engine.url].num_running_requests == 8
    assert stats[f"{engine.url}@1"].num_running_requests == 5
    scraper.close()


def test_prompts_stay_with_a_rank() -> None:
    fleet = Fleet(with_ranks(["http://a", "http://b"], 2), "prefix_cache", params={"seed": 1})
    homes: dict[int, set[str]] = {n: set() for n in range(6)}
    for _ in range(3):
        for n, found in homes.items():
            with fleet.request({"prompt": f"{n:04d}" * 800}) as request:
                found.add(request.url)
                assert request.target == rank_of(request.url)
                assert request.target.headers[HEADER] in "01"
                time.sleep(0.02)  # what answers sooner is taken for no engine
                request.first_token()
    assert all(len(found) == 1 for found in homes.values())
    assert len(set().union(*homes.values())) > 2
    assert set(fleet.table.urls) == set(with_ranks(["http://a", "http://b"], 2))


def test_a_source_gives_one_for_each_rank() -> None:
    source = KVSource("http://e", "tcp://e:5557", "tcp://e:6557", ranks=2, topic="kv")
    assert list(source.each_rank()) == [
        KVSource("http://e@0", "tcp://e:5557", "tcp://e:6557", topic="kv"),
        KVSource("http://e@1", "tcp://e:5558", "tcp://e:6558", topic="kv"),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(kv_events_port=5557, kv_replay_port=6557),
        Settings(kv_events={"http://e:8000": "tcp://e:5557"}, kv_replay_port=6557),
        Settings(
            kv_events={
                "http://e:8000": {"address": "tcp://e:5557", "replay": "tcp://e:6557", "ranks": 4}
            }
        ),
        Settings(kv_events={"http://e:8000@2": "tcp://e:5559"}, kv_replay_port=6559),
    ],
)
@pytest.mark.parametrize("address", ["http://e:8000", "http://e:8000@2"])
def test_settings_of_an_engine_hold_for_its_ranks(settings: Settings, address: str) -> None:
    expected = KVSource("http://e:8000@2", "tcp://e:5559", "tcp://e:6559")
    assert _source(settings, "http://e:8000@2", address) == expected


def test_a_simulated_engine_puts_a_request_on_the_rank_that_it_names() -> None:
    async def ask() -> list[int]:
        made = Simulated(speed=50, more=(Scheduler(), Scheduler()))
        async with serve(made.app) as url, aiohttp.ClientSession() as session:
            for rank, status in (("2", 200), ("2", 200), ("3", 400), ("x", 400), (None, 200)):
                headers = {} if rank is None else {HEADER: rank}
                body = {"prompt": "a" * 400, "max_tokens": 1}
                async with session.post(f"{url}/v1/completions", json=body, headers=headers) as got:
                    assert got.status == status, rank
            async with session.get(f"{url}/metrics") as got:
                text = await got.text()
        assert read_metrics(text).queries == 300
        return [int(read_metrics(text, rank=rank).queries or 0) for rank in range(3)]

    assert asyncio.run(ask()) == [100, 0, 200]


def test_a_live_fleet_routes_among_ranks_by_their_events() -> None:
    pytest.importorskip("zmq")
    jobs = conversations(rate=12, seconds=4.0, seed=1)
    settings = {"endpoints": 2, "ranks": 3, "seconds": 0.8, "speed": 5.0, "kv_events": True}
    (result,) = asyncio.run(run(jobs, ["expected_latency"], **settings))  # type: ignore[arg-type]
    assert result.requests > 0
    assert result.errors == 0
    assert result.cache_by == "events"
