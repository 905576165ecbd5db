"""What the real Envoy does with requests while there is no picker at all."""

from typing import Any

import pytest
from ports import free_port
from world import CHAT, Envoy, chat, ext_proc, needs_envoy, run, world

pytestmark = needs_envoy


@pytest.mark.parametrize(
    ("buffered", "allow", "with_body", "without"),
    [
        (False, True, 500, 200),
        (True, True, 200, 200),
        (False, False, 500, 500),
        (True, False, 500, 500),
    ],
)
def test_without_a_picker(buffered: bool, allow: bool, with_body: int, without: int) -> None:
    from routecore.integrations.envoy.bootstrap import bootstrap
    from routecore.integrations.envoy.settings import load

    async def test() -> None:
        async with world(2, start=False) as w:
            endpoints = ",".join(engine.address for engine in w.engines)
            settings = load({"endpoints": endpoints, "listen": f"127.0.0.1:{free_port()}"}, {})
            config: dict[str, Any] = bootstrap(
                settings, port=0, address="127.0.0.1", admin=0, buffered=buffered
            )
            ext_proc(config)["failure_mode_allow"] = allow
            envoy = Envoy(config)
            w.on_end(envoy.stop)
            await envoy.start(w.client)
            for _ in range(3):
                async with w.client.post(envoy.url + CHAT, json=chat("hi")) as answer:
                    assert answer.status == with_body
                async with w.client.get(envoy.url + "/v1/models") as answer:
                    assert answer.status == without

    run(test())
