"""Data-parallel ranks of a real engine: the header, each rank's metrics and its events."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kv_sockets import wait
from ports import free_ports
from routecore import EndpointTable, EngineStatsScraper, Fleet, new_instance
from routecore.endpoints.ranks import rank_of, with_ranks
from routecore.kv_events import KVEventSubscriber, KVSource
from vllm_server import Engine

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

RANKS = 2


@pytest.fixture(scope="module")
def engine(
    engines_python: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    log = tmp_path_factory.mktemp("logs") / "ranks.log"
    made = Engine(engines_python, model, log, more=("--data-parallel-size", str(RANKS)))
    # Each rank has its own: the first, and the next.
    made.events, made.replay = free_ports(RANKS)[0], free_ports(RANKS)[0]
    made.launch()
    try:
        made.ready()
        yield made
    finally:
        made.close()


def ask(engine: Engine, endpoint: str, prompt: list[int]) -> int:
    """Tokens that the rank had of the prompt."""
    to = rank_of(endpoint)
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1}
    answer = engine.http.post(to.address + "/v1/completions", json=body, headers=to.headers)
    assert answer.status_code == 200, answer.text
    details = answer.json()["usage"].get("prompt_tokens_details") or {}
    return details.get("cached_tokens") or 0


def test_the_header_names_the_rank(engine: Engine) -> None:
    zero, one = with_ranks([engine.url], RANKS)
    prompt = list(range(100, 100 + 8 * engine.block))
    assert ask(engine, zero, prompt) == 0
    assert ask(engine, one, prompt) == 0
    assert ask(engine, zero, prompt) == ask(engine, one, prompt) == 7 * engine.block
    with pytest.raises(AssertionError, match=r"(?i)rank"):
        ask(engine, f"{engine.url}@{RANKS}", prompt)


def test_each_rank_has_its_metrics_and_its_events(engine: Engine) -> None:
    zero, one = with_ranks([engine.url], RANKS)
    scraper = new_instance(EngineStatsScraper, [zero, one], table=EndpointTable())
    source = KVSource(
        engine.url,
        f"tcp://127.0.0.1:{engine.events}",
        f"tcp://127.0.0.1:{engine.replay}",
        ranks=RANKS,
    )
    subscriber = KVEventSubscriber(source.each_rank())
    prompt = list(range(1000, 1000 + 10 * engine.block))
    try:
        scraper.scrape_once()
        before = [scraper.get_engine_stats()[url] for url in (zero, one)]
        ask(engine, one, prompt)
        wait(lambda: subscriber.index.matched(prompt, [one])[0][0] == 9 * engine.block)
        assert subscriber.index.matched(prompt, [zero])[0][0] == 0
        wait(lambda: _asked(scraper, one) > before[1].gpu_prefix_cache_queries_total)
        scraper.scrape_once()
        after = [scraper.get_engine_stats()[url] for url in (zero, one)]
    finally:
        subscriber.close()
        scraper.close()
    grown = [
        now.gpu_prefix_cache_queries_total - then.gpu_prefix_cache_queries_total
        for then, now in zip(before, after, strict=True)
    ]
    assert grown == [0, len(prompt)]
    capacity = scraper.table.column("kv_capacity_tokens")
    assert set(capacity) == {engine.blocks * engine.block}


def _asked(scraper: EngineStatsScraper, url: str) -> float:
    scraper.scrape_once()
    return scraper.get_engine_stats()[url].gpu_prefix_cache_queries_total


def test_a_fleet_keeps_prompts_with_their_rank(engine: Engine) -> None:
    fleet = Fleet(with_ranks([engine.url], RANKS), params={"seed": 1})
    hits = 0
    for turn in range(4):
        for name in range(4):
            prompt = [500 * name + n for n in range(2, 2 + 8 * engine.block)]
            with fleet.request({"prompt": prompt}) as request:
                found = ask(engine, request.url, prompt)
                request.first_token()
                request.usage(len(prompt), found, 1)
            hits += bool(turn and found == 7 * engine.block)
    assert hits == 12
    assert len({url for url in fleet.table.urls if url}) == RANKS
