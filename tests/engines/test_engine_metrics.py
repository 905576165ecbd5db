"""Every metric that we read, from a live engine."""

import pytest
from routecore.endpoints.metrics import read_metrics
from vllm_server import Engine

pytestmark = pytest.mark.engines


def test_every_figure_is_in_a_live_answer(engine: Engine) -> None:
    body = {"prompt": "word " * 200, "max_tokens": 2}
    before = read_metrics(engine.http.get("/metrics").text)
    found = [engine.serve(body)[:2] for _ in range(3)]
    after = read_metrics(engine.http.get("/metrics").text)
    assert after.kv_tokens == engine.block * engine.blocks
    assert (after.running, after.queuing, after.skipped) == (0, 0, 0)
    assert after.usage is not None and 0 <= after.usage <= 1
    assert None not in (before.hits, before.queries, after.hits, after.queries)
    assert (after.hits or 0) - (before.hits or 0) == sum(cached for _, cached in found)
    assert (after.queries or 0) - (before.queries or 0) == sum(prompt for prompt, _ in found)
