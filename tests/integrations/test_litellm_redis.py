"""`replicas: litellm` means the Redis that LiteLLM was given."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from routecore import RouteError
from routecore.integrations.litellm import redis
from routecore.replicas.address import channel_of


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for the proxy's module, whose router was given these."""

    def given(**kwargs: Any) -> None:
        cache = SimpleNamespace(redis_cache=SimpleNamespace(redis_kwargs=kwargs))
        module = SimpleNamespace(llm_router=SimpleNamespace(cache=cache))
        monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", module)

    return given


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "r", "port": 6380}, "redis://r:6380"),
        ({"host": "r", "port": None, "password": "p@ss/w:rd"}, "redis://:p%40ss%2Fw%3Ard@r:6379"),
        ({"host": "r", "port": 1, "username": "u", "password": "p"}, "redis://u:p@r:1"),
        ({"host": "r", "port": 1, "ssl": True, "db": 2}, "rediss://r:1/2"),
        ({"url": "rediss://u:p@r:1/2"}, "rediss://u:p@r:1/2"),
    ],
)
def test_the_proxys_redis_counts_before_the_environment(
    proxy: Any, given: dict[str, Any], url: str
) -> None:
    proxy(**given)
    assert redis.url({"REDIS_URL": "redis://elsewhere"}) == url


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"REDIS_URL": "redis://r:1"}, "redis://r:1"),
        ({"REDIS_HOST": "r", "REDIS_PORT": "2", "REDIS_SSL": "True"}, "rediss://r:2"),
        ({"REDIS_HOST": "r", "REDIS_PASSWORD": "p#1"}, "redis://:p%231@r:6379"),
    ],
)
def test_without_a_proxy_the_variables_count(environ: dict[str, str], url: str) -> None:
    assert redis.url(environ) == url


def test_no_redis_or_a_cluster_is_an_error_that_says_what_to_set(proxy: Any) -> None:
    with pytest.raises(RouteError, match="LiteLLM has no Redis; set router_settings"):
        redis.url({})
    proxy(startup_nodes=[{"host": "a", "port": 1}])
    with pytest.raises(RouteError, match="name one node"):
        redis.url({})


def test_the_word_means_nothing_to_other_hosts() -> None:
    with pytest.raises(RouteError, match=r"'litellm': expected redis://"):
        channel_of("litellm")


@pytest.mark.hosts
@pytest.mark.litellm
@pytest.mark.filterwarnings("ignore")  # of what LiteLLM imports
def test_a_real_router_s_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a model group whose Redis does not answer is routed as if it were alone."""
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed: make test-hosts")
    from routecore.integrations.litellm import RoutecoreCallback

    made = litellm.Router(
        model_list=[
            {
                "model_name": "m",
                "litellm_params": {"model": "openai/x", "api_base": "http://127.0.0.1:1/v1"},
            }
        ],
        redis_host="127.0.0.1",
        redis_port=1,
        redis_password="p",
    )
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", SimpleNamespace(llm_router=made))
    assert redis.url({}) == "redis://:p@127.0.0.1:1"
    callback = RoutecoreCallback(strategy="least_connections", replicas="litellm")
    group = callback._group("m")
    assert group is not None and group.fleet.replicas is not None
    group.fleet.replicas.close()
