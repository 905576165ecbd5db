"""The LiteLLM adapter against a stand-in of its callback contract: no LiteLLM needed."""

import asyncio
import contextlib
import copy
import importlib
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from litellm_stand_in import Call, CustomLogger, at, deployments, install
from prometheus_client import REGISTRY
from routecore import RouteError
from routecore.integrations.shared.shadow import summarise

MODULE = "routecore.integrations.litellm"


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text * 40}]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield install(monkeypatch)
    for name in [m for m in sys.modules if m.startswith(MODULE)]:
        del sys.modules[name]


def made(host: ModuleType, **given: Any) -> Any:
    callback = importlib.import_module(MODULE).RoutecoreCallback(**given)
    host.callbacks[:] = [callback]
    return callback


def ask(
    host: ModuleType,
    found: list[dict[str, Any]],
    messages: Any = None,
    model: str = "m",
    **kwargs: Any,
) -> list[str]:
    """What LiteLLM does before its own strategy: every callback filters what the last left."""

    async def inside() -> list[dict[str, Any]]:
        left = found
        for callback in host.callbacks:
            left = await callback.async_filter_deployments(
                model=model,
                healthy_deployments=left,
                messages=messages,
                request_kwargs=kwargs,
                parent_otel_span=None,
            )
        return left

    return [d["model_info"]["id"] for d in asyncio.run(inside())]


_LAPSE = itertools.count(2, 2)  # seconds


def loads(callback: Any, group: str = "m") -> dict[str, float]:
    fleet = callback._groups[group].fleet
    fleet.monitor.get_request_stats(time.time() + next(_LAPSE))  # choices never sent lapse
    columns = zip(fleet.table.urls, fleet.table.column("in_flight"), strict=True)
    return {url: load for url, load in columns if url is not None and load}


def test_the_prompts_home_alone_is_returned(host: ModuleType) -> None:
    made(host, strategy="prefix_affinity", params={"load_factor": 50.0})
    found = deployments(8)
    homes = {text: ask(host, found, chat(text)) for text in "abcdefghijkl"}
    assert all(len(home) == 1 for home in homes.values())
    assert len({home[0] for home in homes.values()}) > 1
    assert all(ask(host, found, chat(text)) == home for text, home in homes.items())
    assert ask(host, [], chat("a")) == []


def test_groups_are_apart(host: ModuleType) -> None:
    callback = made(
        host, strategy="round_robin", groups={"other": {"strategy": "least_connections"}}
    )
    found = deployments(3)
    first = [ask(host, found)[0] for _ in range(2)]
    ask(host, deployments(2), model="other")
    assert [*first, ask(host, found)[0]] == ["d0", "d1", "d2"]
    assert callback._groups["other"].fleet.settings.strategy == "least_connections"


def test_a_request_counts_from_its_call_to_its_first_end(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    found = deployments(2)
    busy = ask(host, found)[0]
    call = Call(callback, busy)
    assert loads(callback) == {busy: 1}
    assert ask(host, found)[0] != busy
    asyncio.run(call.succeeded())
    asyncio.run(call.succeeded())
    asyncio.run(call.failed())
    assert loads(callback) == {}
    assert callback._groups["m"].fleet.monitor.get_request_stats(0.0)[busy].finished_requests == 1


def test_cached_tokens_are_counted_once_for_the_hosts_registry(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    labels = {"host": "litellm", "strategy": "least_connections"}

    def counted() -> float:
        return REGISTRY.get_sample_value("routecore_actual_hit_tokens_total", labels) or 0.0

    before = counted()
    asyncio.run(Call(callback, "d0").succeeded())  # both the hook and the log event tell
    assert counted() == before + 16
    (metric,) = [m for m in REGISTRY.collect() if m.name == "routecore_in_flight_requests"]
    Call(callback, "d0")
    (after,) = [m for m in REGISTRY.collect() if m.name == "routecore_in_flight_requests"]
    assert after.samples[0].value == metric.samples[0].value + 1


def test_a_call_announced_twice_counts_once(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    call = Call(callback, "d0")
    callback.log_pre_api_call(model="m", messages=[], kwargs=call.kwargs)
    assert loads(callback) == {"d0": 1}
    asyncio.run(call.succeeded())
    assert loads(callback) == {}


def test_calls_that_never_end_are_forgotten(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    for _ in range(70_000):
        Call(callback, "d0", stream=True)
    assert len(callback._calls) == 65_536


def test_a_failed_attempt_leaves_the_load_whichever_hook_tells(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    asyncio.run(Call(callback, "d0").failed())
    assert loads(callback) == {}
    once = Call(callback, "d1")
    callback.log_failure_event(
        kwargs=once.kwargs, response_obj=None, start_time=at(0), end_time=at(0)
    )
    assert loads(callback) == {}


class Logged:
    """LiteLLM's logging object of a call, which lives as long as that."""


def in_flight(callback: Any) -> int:
    return int(callback._groups["m"].fleet.monitor.in_flight)


def test_a_call_that_is_cancelled_leaves_the_load_with_it(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))

    async def call(name: str) -> None:
        logged = Logged()
        data = {"model_info": {"id": "d0"}, "litellm_call_id": name}
        await callback.async_pre_call_deployment_hook(
            kwargs={**data, "litellm_logging_obj": logged}, call_type=None
        )
        callback.log_pre_api_call(model="m", messages=[], kwargs=data)
        await asyncio.sleep(60)
        del logged

    async def work() -> None:
        task = asyncio.create_task(call("a"))
        # Whoever keeps the exception keeps all that the call had.
        kept = await asyncio.gather(asyncio.wait_for(task, 0.01), return_exceptions=True)
        await asyncio.sleep(0)
        assert isinstance(kept[0], TimeoutError)
        assert in_flight(callback) == 0
        # In one and the same task, as asyncio.timeout cancels.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await call("b")
        await asyncio.sleep(0.01)
        assert in_flight(callback) == 0
        assert callback._groups["m"].fleet.monitor.standing("d0") is None

    asyncio.run(work())


def test_a_call_whose_object_lives_on_counts_until_its_end(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    logged = Logged()

    async def work() -> None:
        data = {"model_info": {"id": "d0"}, "litellm_call_id": "c"}
        await callback.async_pre_call_deployment_hook(
            kwargs={**data, "litellm_logging_obj": logged}, call_type=None
        )
        callback.log_pre_api_call(model="m", messages=[], kwargs=data)
        await asyncio.sleep(0)
        assert in_flight(callback) == 1
        await callback.async_log_success_event(
            kwargs=data, response_obj=None, start_time=at(0), end_time=at(1)
        )
        assert in_flight(callback) == 0

    asyncio.run(work())


class ConnectError(Exception):
    """As httpx calls it."""


class ReadError(Exception):
    """As httpx calls it."""


class Dressed(Exception):
    """As LiteLLM dresses what went wrong."""

    def __init__(self, status: int | None, headers: Any = None) -> None:
        super().__init__()
        self.status_code, self.litellm_response_headers = status, headers


def caused(by: BaseException, status: int | None = 500) -> Dressed:
    error = Dressed(status)
    error.__context__ = Exception("Connection error.")
    error.__context__.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (caused(ConnectError()), ("connect", None)),
        (caused(ReadError()), ("broken", None)),
        (ReadError(), ("broken", None)),
        (caused(TimeoutError(), 408), ("timeout", None)),
        (Dressed(408), ("timeout", None)),
        (Dressed(500, {"x": "y"}), ("status", None)),
        (Dressed(500), ("status", None)),
        (Dressed(401, {"x": "y"}), ("status", None)),
        (Dressed(429, {"retry-after": "7"}), ("busy", 7.0)),
        (Dressed(503, {"x": "y"}), ("busy", None)),
        (asyncio.CancelledError(), ("client", None)),
        (ValueError(), ("unknown", None)),
        (None, ("unknown", None)),
        (Dressed(400, {"x": "y"}), 400),
        (Dressed(422), 422),
    ],
)
def test_how_a_call_failed_is_reported(host: ModuleType, error: Any, said: Any) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(2))
    reported: list[Any] = []
    monitor = callback._groups["m"].fleet.monitor
    monitor.on_request_failed = lambda _url, _id, _at, *how: reported.append(how)
    monitor.on_request_complete = lambda _url, _id, _at, status: reported.append(status)
    call = Call(callback, "d0")
    asyncio.run(
        callback.async_post_call_failure_deployment_hook(
            request_data=call.data, exception=error, call_type=None
        )
    )
    assert reported == [said]


def test_fresh_dicts_are_known_by_their_ids(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = made(host, strategy="round_robin")
    ask(host, deployments(3))
    group = callback._groups["m"]
    met: list[Any] = []
    monkeypatch.setattr(
        group, "read", lambda found: met.append(found) or type(group).read(group, found)
    )
    assert {ask(host, deployments(3))[0] for _ in range(6)} == {"d0", "d1", "d2"}
    assert met == []
    assert ask(host, deployments(2))[0] in {"d0", "d1"}
    assert len(met) == 1
    # What may have changed under the same ids is read again.
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 5.0)
    changed = deployments(2)
    changed[0]["litellm_params"]["order"] = 1
    assert {ask(host, changed)[0] for _ in range(4)} == {"d0"}


def test_a_stream_gives_time_to_first_token(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections")
    ask(host, deployments(1))
    begin = time.time()
    call = Call(callback, "d0", stream=True)
    asyncio.run(call.succeeded(start=begin, first=begin + 0.25, end=begin + 1.0))
    stats = callback._groups["m"].fleet.monitor.get_request_stats(begin + 1.0)["d0"]
    assert stats.ttft == pytest.approx(0.25, abs=0.05)
    assert stats.avg_latency == pytest.approx(1.0, abs=0.05)


def test_an_abandoned_stream_leaves_the_load_after_its_lease(host: ModuleType) -> None:
    callback = made(host, strategy="least_connections", lease_timeout=30.0)
    ask(host, deployments(2))
    Call(callback, "d0", stream=True)  # LiteLLM says nothing more of it
    monitor = callback._groups["m"].fleet.monitor
    assert loads(callback) == {"d0": 1}
    monitor.get_request_stats(time.time() + 31.0)
    assert (monitor.in_flight, monitor.leases_expired) == (0, 1)


def test_deployments_that_failed_this_request_are_passed_over(host: ModuleType) -> None:
    made(host, strategy="prefix_affinity")
    found = deployments(4)
    (home,) = ask(host, found, chat("a"))
    for key, failed in (
        ("_excluded_deployment_ids", [home]),
        ("_retry_skipped_deployment_ids", (home,)),
        ("metadata", {"previous_models": ({"deployment_id": home},)}),
        ("litellm_metadata", {"previous_models": [{"deployment_id": home}, "odd"]}),
    ):
        (second,) = ask(host, found, chat("a"), **{key: failed})
        assert second != home
    everyone = [d["model_info"]["id"] for d in found]
    assert ask(host, found, chat("a"), _retry_skipped_deployment_ids=tuple(everyone)) == [home]


def test_what_the_host_filters_later_is_filtered_before(host: ModuleType) -> None:
    made(host, strategy="round_robin")
    found = deployments(6)
    for i, deployment in enumerate(found):
        deployment["litellm_params"] |= {"order": 1 + i // 4}
    assert {ask(host, found)[0] for _ in range(8)} == {"d0", "d1", "d2", "d3"}
    assert {ask(host, found, _target_order=2)[0] for _ in range(8)} == {"d4", "d5"}


def test_tags_of_request_and_deployment_meet(host: ModuleType) -> None:
    made(host, strategy="round_robin")
    found = deployments(6)
    for i, tags in enumerate((["a"], ["a", "b"], ["b"], ["default"], ["default"], None)):
        found[i]["litellm_params"]["tags"] = tags

    def to(*tags: str) -> set[str]:
        return {ask(host, found, metadata={"tags": [*tags]})[0] for _ in range(12)}

    assert to("a") == {"d0", "d1"}
    assert to("a", "b") == {"d1"}
    assert to("a", "User-Agent: x") == {"d0", "d1"}
    assert to("unknown") == to() == {"d3", "d4"}
    # Signs and patterns are the host's.
    assert len(ask(host, found, metadata={"tags": ["!a"]})) == 6
    found = deployments(3, tag_regex=["^x"])
    assert len(ask(host, found)) == 3


def test_a_later_filter_comes_first_from_the_next_request_on(host: ModuleType) -> None:
    class Budget(CustomLogger):
        async def async_filter_deployments(
            self, model: str, healthy_deployments: list[Any], *_args: Any, **_kwargs: Any
        ) -> list[Any]:
            return [d for d in healthy_deployments if d["model_info"]["id"] == "d3"]

    callback = made(host, strategy="round_robin")
    host.callbacks.append(Budget())
    host.callbacks.append(CustomLogger())  # filters nothing: no reason to move
    found = deployments(4)
    assert [ask(host, found) for _ in range(3)] == [["d3"]] * 3
    assert host.callbacks[-1] is callback
    assert len(host.callbacks) == 3


def test_a_failing_strategy_fails_no_request_and_is_logged_once(
    host: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    callback = made(host, strategy="round_robin")
    found = deployments(3)
    ask(host, found)

    def broken(*_args: Any) -> str:
        raise ZeroDivisionError("boom")

    callback._groups["m"].fleet.router.route_request = broken
    for _ in range(5):
        assert len(ask(host, found)) == 3
    assert callback._groups["m"].fleet.faults == 5
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 1
    assert "ZeroDivisionError: boom" in lines[0]


def test_odd_deployments_and_events_fail_nothing(host: ModuleType) -> None:
    callback = made(host, strategy="round_robin")
    odd: list[Any] = [{}, {"model_info": None}]
    assert len(asyncio.run(callback.async_filter_deployments("m", odd, None))) == 2
    for data in ({}, {"litellm_params": None}, {"litellm_params": {"model_info": None}}, None):
        callback.log_pre_api_call(model=None, messages=None, kwargs=data)
        callback.log_failure_event(kwargs=data, response_obj=None, start_time=None, end_time=None)


def test_sessions_come_from_headers_or_the_hosts_own_ids(host: ModuleType) -> None:
    made(host, strategy="session_affinity")
    found = deployments(8)
    headers = {"proxy_server_request": {"headers": {"X-Session-Id": "s7"}}}
    home = ask(host, found, **headers)
    for other in (
        {"litellm_session_id": "s7"},
        {"metadata": {"session_id": "s7"}},
        {"metadata": {"headers": {"x-session-id": "s7"}}},
    ):
        assert ask(host, found, **other) == home
    homes = {ask(host, found, litellm_session_id=f"s{i}")[0] for i in range(20)}
    assert len(homes) > 1


def test_groups_that_clients_make_up_are_bounded(host: ModuleType) -> None:
    callback = made(host, strategy="round_robin")
    found = deployments(2)
    for i in range(600):
        ask(host, found, model=f"made-up-{i}")
    assert len(callback._groups) == 256


def test_shadow_mode_returns_all_and_records_what_was_called(
    host: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "shadow.jsonl"
    callback = made(host, strategy="prefix_affinity", mode="shadow", shadow_file=str(path))
    found = deployments(4)

    async def request(to: str) -> None:
        left = await callback.async_filter_deployments("m", found, chat("a"), {}, None)
        assert left is found
        await Call(callback, to).succeeded()

    for to in ("d0", "d1", "d2", "d3"):
        asyncio.run(request(to))
    callback._groups["m"].fleet.shadow.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["host"] for r in records] == ["d0", "d1", "d2", "d3"]
    assert len({r["ours"] for r in records}) == 1


def test_variables_override_the_hosts_settings(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.routecore_params = {  # type: ignore[attr-defined]
        "strategy": "least_connections",
        "lease_timeout": 45.0,
        "params": {"ties": "first"},
    }
    callback = importlib.import_module(MODULE).callback
    host.callbacks.append(callback)
    assert ask(host, deployments(3)) == ["d0"]
    assert callback._groups["m"].fleet.settings.strategy == "least_connections"
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    monkeypatch.setenv("ROUTECORE_PARAMS", '{"load_factor": 2.0}')
    again = made(host)
    ask(host, deployments(3))
    read = again._groups["m"].fleet.settings
    assert (read.strategy, read.params, read.lease_timeout) == (
        "prefix_affinity",
        {"load_factor": 2.0},
        45.0,
    )


def test_wrong_settings_fail_at_start_or_leave_the_choice(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RouteError, match="unknown 'fastest'"):
        made(host, strategy="fastest")
    with pytest.raises(RouteError, match="takes no parameter 'x'"):
        made(host, strategy="round_robin", groups={"m": {"params": {"x": 1}}})
    monkeypatch.setenv("ROUTECORE_PARAMS", "load")
    with pytest.raises(RouteError, match="ROUTECORE_PARAMS"):
        made(host)
    monkeypatch.delenv("ROUTECORE_PARAMS")
    host.routecore_params = {"strategie": "round_robin"}  # type: ignore[attr-defined]
    made(host)
    assert len(ask(host, deployments(3))) == 3
    assert any("strategie" in r.getMessage() for r in caplog.records)


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "litellm"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [m for m in sys.modules if m.startswith(MODULE)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "litellm", None)
    # The callback is what LiteLLM asks for; the package alone can be imported without it.
    with pytest.raises(ImportError, match=r"pip install 'routecore\[litellm\]'"):
        _ = importlib.import_module(MODULE).callback


def test_a_deployment_exchanged_in_the_middle_is_never_called_by_its_old_name(
    host: ModuleType,
) -> None:
    callback = made(host, strategy="round_robin")
    ask(host, deployments(9))
    group = callback._groups["m"]
    changed = deployments(9)
    changed[4] = {**changed[4], "model_info": {"id": "new"}}  # both ends, and most, are as before
    names = {d["model_info"]["id"] for d in changed}
    seen = {ask(host, copy.deepcopy(changed))[0] for _ in range(40)}
    assert seen == names
    assert group.ids == tuple(d["model_info"]["id"] for d in changed)


def test_another_engine_behind_the_same_id_is_met_anew(host: ModuleType) -> None:
    callback = made(host, strategy="prefix_cache")
    (home,) = ask(host, deployments(2), chat("a " * 400))
    asyncio.run(Call(callback, home).succeeded())
    table = callback._groups["m"].fleet.table
    before = table.core.held(home)[0]
    other = deployments(2)
    ask(host, other, chat("b"))
    assert table.core.held(home)[0] >= before > 0
    group = callback._groups["m"]
    group._until = 0.0  # a second has passed
    moved = next(d for d in other if d["model_info"]["id"] == home)
    moved["litellm_params"]["api_base"] = "http://elsewhere:8000/v1"
    ask(host, copy.deepcopy(other), chat("c"))
    assert table.core.held(home)[0] < before


def test_records_of_shadow_mode_foretell_hits(host: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "shadow.jsonl"
    callback = made(host, strategy="expected_latency", mode="shadow", shadow_file=str(path))
    found = deployments(3)

    async def request(to: str) -> None:
        await callback.async_filter_deployments("m", found, chat("a " * 80), {}, None)
        await Call(callback, to).succeeded(end=time.time() + 1.0)

    for number in range(6):
        asyncio.run(request(f"d{number % 3}"))
    callback._groups["m"].fleet.shadow.close()
    summary = summarise([path])
    assert summary.requests == 6
    assert summary.hit_rate["host"] < summary.hit_rate["ours"]
    assert summary.latency_ms["ours"] <= summary.latency_ms["host"]
    assert summary.took_ms is not None
    assert callback._groups["m"].fleet.monitor.in_flight == 0


class Limited(Exception):
    """LiteLLM's error of a 429, as far as we fill it in."""

    def __init__(
        self, message: str, llm_provider: str, model: str, response: Any, num_retries: int
    ) -> None:
        super().__init__(message)
        self.model, self.response, self.num_retries = model, response, num_retries


def figure(name: str, **labels: str) -> float:
    """A metric of ours as it is now."""
    of = {"host": "litellm", "strategy": "expected_latency", **labels}
    return REGISTRY.get_sample_value(f"routecore_{name}", of) or 0.0


@pytest.mark.parametrize("bound", [{}, {"max_requests": 0}])
def test_with_a_hold_requests_wait_for_room_or_learn_when_to_come_again(
    host: ModuleType, bound: dict[str, Any]
) -> None:
    host.RateLimitError = Limited  # type: ignore[attr-defined]
    callback = made(
        host,
        strategy="expected_latency",
        params={"kv_tokens": 1000, "seed": 1},
        hold=True,
        hold_limits=bound,
    )
    found = deployments(1)

    async def choose(i: int) -> list[dict[str, Any]]:
        words = [{"role": "user", "content": f"{i:04d}" * 600}]
        chosen: list[dict[str, Any]] = await callback.async_filter_deployments(
            model="m", healthy_deployments=found, messages=words, request_kwargs={}
        )
        return chosen

    async def scenario() -> None:
        assert await choose(1) == found
        call = Call(callback, "d0")
        if bound:
            before = figure("rejected_requests_total", reason="requests")
            with pytest.raises(Limited, match="too many requests wait") as limited:
                await choose(2)
            assert figure("rejected_requests_total", reason="requests") == before + 1
            assert limited.value.response.status_code == 429
            assert int(limited.value.response.headers["retry-after"]) >= 1
            assert limited.value.num_retries == 0
            return
        waits = asyncio.create_task(choose(2))
        for _ in range(1_000):
            if callback.held("m"):
                break
            await asyncio.sleep(0)
        (one,) = callback.held("m")
        assert one.waits is not None and one.waits.url == "d0"
        assert "waits for room at d0" in str(one) and callback.held("other") == ()
        assert figure("waiting_requests") == 1 and not waits.done()
        before = figure("waited_seconds_count"), figure("waited_seconds_sum")
        await call.succeeded()
        assert await asyncio.wait_for(waits, 30) == found
        assert callback.held("m") == () and figure("waiting_requests") == 0
        assert figure("waited_seconds_count") == before[0] + 1
        assert figure("waited_seconds_sum") > before[1]

    asyncio.run(scenario())


def test_a_wrong_bound_of_the_hold_is_named_at_the_start(host: ModuleType) -> None:
    for given, said in [
        ({"hold": True, "hold_limits": {"max_wait": 1}}, "did you mean `max_wait_s`"),
        ({"hold_limits": {"max_wait_s": 1}}, "need hold = true"),
    ]:
        with pytest.raises(RouteError, match=said):
            made(host, strategy="expected_latency", **given)
