"""Requests go where the engines' own KV events say that their prompt is."""

import json
from typing import Any

import pytest

zmq = pytest.importorskip("zmq")

from kv_messages import stored  # noqa: E402
from kv_sockets import Sockets  # noqa: E402
from routecore.integrations.shared import engine_caches  # noqa: E402
from world import World, needs_envoy, run, until, world  # noqa: E402

pytestmark = needs_envoy
TOKENS = list(range(1, 257))
BODY = json.dumps({"model": "m", "prompt": TOKENS}).encode()


def test_a_prompt_goes_where_an_engine_says_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_caches, "_LOOK_SECONDS", 0.0)

    async def test() -> None:
        context = zmq.Context()
        sockets = [Sockets(context) for _ in range(4)]
        try:
            async with world(4, start=False) as plain:
                named = {
                    engine.url: {"address": one.address, "replay": one.replay}
                    for engine, one in zip(plain.engines, sockets, strict=True)
                }
                given: dict[str, Any] = {"strategy": "prefix_cache", "kv_events": named}
                addresses = ",".join(engine.address for engine in plain.engines)
                async with world(0, endpoints=addresses, **given) as w:
                    w.engines += plain.engines
                    await routed(w, sockets[2], plain.engines[2].url)
        finally:
            for one in sockets:
                one.close()
            context.term()

    run(test())


async def routed(w: World, sockets: Sockets, url: str) -> None:
    caches = w.picker.fleet.caches
    assert (await w.post(b'{"prompt": "something else"}')).status == 200
    await until(lambda: len(caches._seen) == 4)
    sockets.send(stored([*range(1, 17)], None, TOKENS, 16))
    await until(lambda: bool(caches.index.matched(TOKENS, [url])[0][0]))
    for _ in range(5):
        answer = await w.post(BODY)
        assert f"http://127.0.0.1:{json.loads(await answer.text())['at']}" == url
    await w.idle()
