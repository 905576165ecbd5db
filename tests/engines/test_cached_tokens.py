"""What is predicted to be cached is what vLLM finds in its cache, by events and by history."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from routecore import EndpointInfo, EndpointTable, PrefixCacheRouter, RequestStatsMonitor
from routecore.kv_events import KVEventSubscriber, PromptTokens
from traffic import Sessions
from vllm_server import Engine

pytestmark = pytest.mark.engines

SETTLES = 0.03  # seconds from an answer until its events were heard


def wait(until: Any, seconds: float) -> float:
    """Seconds until something is so."""
    start = time.monotonic()
    while not until():
        assert time.monotonic() < start + seconds, "it never came to be"
        time.sleep(0.005)
    return time.monotonic() - start


class Router:
    """A cache strategy beside one engine, which learns of every request as a host would."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.engine = engine
        # Past the singleton registry: each test has its own.
        self.monitor: Any = type.__call__(RequestStatsMonitor, 60.0, table=EndpointTable())
        kv_tokens = engine.block * engine.blocks
        self.router = type.__call__(
            PrefixCacheRouter, seed=1, kv_tokens=kv_tokens, block_tokens=engine.block, **options
        )
        self.endpoints = [EndpointInfo(url=engine.url)]
        self._lock, self._sent = threading.Lock(), 0

    def send(self, body: dict[str, Any]) -> tuple[float, str]:
        """Choose; cached tokens that were promised, and the request's name."""
        now, url = time.time(), self.engine.url
        with self._lock:
            self._sent += 1
            name = f"r{self._sent}"
            stats = self.monitor.get_request_stats(now)
            found = self.router.explain(self.endpoints, {}, stats, None, body)
            terms = {term.name: term.value for term in found.candidates[0].terms}
            self.router.route_request(self.endpoints, {}, stats, None, body)
            self.monitor.on_new_request(url, name, now)
        return terms["cached"], name

    def done(self, name: str, usage: tuple[int, int, int]) -> None:
        """It was served, with this usage."""
        url = self.engine.url
        self.monitor.on_request_response(url, name, time.time())
        self.monitor.on_usage(url, name, *usage)
        self.monitor.on_request_complete(url, name, time.time())


def test_by_events_every_request_sequentially_and_by_history_nearly(
    engine: Engine, model: Path
) -> None:
    tokens = PromptTokens.from_model(model)
    subscriber = KVEventSubscriber([engine.source])
    history, sessions = Router(engine), Sessions(1)
    wrong, over, under, total = [], 0.0, 0.0, 0
    try:
        engine.serve({"prompt": "first " * 100, "max_tokens": 2})
        wait(lambda: subscriber.index.is_exact(engine.url), 10)
        for nth, (at, body) in enumerate(sessions.turns(500)):
            salt = body.get("cache_salt")
            ids = tokens.ids(body)
            held = subscriber.index.matched(ids, [engine.url], cache_salt=salt)[0][0]
            promised, name = history.send(body)
            prompt, cached, answer = engine.serve(body)
            history.done(name, (prompt, cached, answer["usage"]["completion_tokens"]))
            sessions.answered(at, body, answer)
            if held != cached or len(ids) != prompt:
                wrong.append((nth, held, cached, len(ids), prompt))
            if nth >= 100:
                total += prompt
                over += max(0.0, promised - cached)
                under += max(0.0, cached - promised)
            time.sleep(SETTLES)
        counters = subscriber.index.counters(engine.url)
        assert counters is not None
        print(
            f"sequential: {500 - len(wrong)} of 500 equal, {counters['removed']} blocks evicted; "
            f"by history over-promised {over / total:.1%}, under-promised {under / total:.1%}"
        )
        assert counters["removed"] > 100, "nothing was evicted"
        assert not wrong
        assert over / total <= 0.03
        assert under / total <= 0.10
    finally:
        subscriber.close()


def test_by_events_eight_at_once(pair: tuple[Engine, Engine], model: Path) -> None:
    engine, tokens = pair[0], PromptTokens.from_model(model)
    engine.http.post("/reset_prefix_cache")
    subscriber = KVEventSubscriber([engine.source])
    router = Router(engine, kv_index=subscriber.index, prompt_tokens=tokens.ids)
    lock, over, under, total = threading.Lock(), [0.0], [0.0], [0]

    def session(seed: int) -> None:
        sessions = Sessions(seed, 2)
        for at, body in sessions.turns(40):
            promised, name = router.send(body)
            prompt, cached, answer = engine.serve(body)
            router.done(name, (prompt, cached, answer["usage"]["completion_tokens"]))
            sessions.answered(at, body, answer)
            with lock:
                over[0] += max(0.0, promised - cached)
                under[0] += max(0.0, cached - promised)
                total[0] += prompt

    try:
        engine.serve({"prompt": "first " * 100, "max_tokens": 2})
        wait(lambda: subscriber.index.is_exact(engine.url), 10)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(session, range(100, 108)))
        right = 1 - (over[0] + under[0]) / total[0]
        counters = subscriber.index.counters(engine.url)
        assert counters is not None
        print(
            f"eight at once: {right:.2%} of {total[0]} prompt tokens right, {over[0]:.0f} promised "
            f"and not found, {under[0]:.0f} the other way; {counters['removed']} blocks evicted"
        )
        assert counters["removed"] > 0, "nothing was evicted"
        assert right >= 0.99
    finally:
        subscriber.close()


def test_a_salt_a_reset_and_a_late_subscriber(engine: Engine, model: Path) -> None:
    tokens = PromptTokens.from_model(model)
    body = {"messages": [{"role": "user", "content": "word " * 300}], "max_tokens": 2}
    engine.serve({**body, "cache_salt": "one"})
    late = KVEventSubscriber([engine.source])
    try:
        wait(lambda: late.index.is_exact(engine.url), 10)
        ids = tokens.ids(body)

        def held(salt: str | None = None) -> int:
            return late.index.matched(ids, [engine.url], cache_salt=salt)[0][0]

        assert held("one") > 200 and held("two") == held() == 0
        assert engine.serve(body)[1] == 0
        wait(lambda: held() > 200, 5)
        assert engine.serve({**body, "cache_salt": "one"})[1] == held("one")
        engine.http.post("/reset_prefix_cache")
        engine.serve({"prompt": "after " * 100, "max_tokens": 2})
        wait(lambda: held() == 0, 5)
        assert held("one") == 0 and late.index.is_exact(engine.url)
        assert engine.serve(body)[1] == 0
    finally:
        late.close()


def test_a_killed_engine_is_exact_again_soon_after_its_first_event(
    pair: tuple[Engine, Engine], model: Path
) -> None:
    engine, tokens = pair[1], PromptTokens.from_model(model)
    subscriber = KVEventSubscriber([engine.source])
    body = {"messages": [{"role": "user", "content": "word " * 300}], "max_tokens": 2}
    ids = tokens.ids(body)
    try:
        engine.serve(body)
        wait(lambda: subscriber.index.is_exact(engine.url), 10)
        engine.kill()
        wait(lambda: not subscriber.index.is_exact(engine.url), 5)
        assert subscriber.index.matched(ids, [engine.url]) == [(0, 0, 0)]
        engine.launch()
        engine.ready()
        assert subscriber.index.matched(ids, [engine.url]) == [(0, 0, 0)]
        engine.serve(body)
        took = wait(lambda: subscriber.index.is_exact(engine.url), 10)
        print(f"exact {took:.2f} s after the answer that made the first event")
        assert took <= 2.0
        assert subscriber.index.matched(ids, [engine.url])[0][0] == engine.serve(body)[1] > 0
    finally:
        subscriber.close()
