"""What a user of production-stack sets, and the launcher; against a stand-in."""

from pathlib import Path
from typing import Any

import pytest
from production_stack_host import (
    BODY,
    CALLBACKS,
    STAND_INS,
    URLS,
    figure,
    good,
    run,
    subprocess_says,
)
from routecore import ROUTERS, RouteError


def test_a_strategy_and_its_parameters_come_from_the_environment(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    monkeypatch.setenv("ROUTECORE_PARAMS", "load_factor=2, seed=1")
    with caplog.at_level("INFO"):
        app = stand_in.start("prefixaware", CALLBACKS, URLS)
    assert app.state.router.decision.strategy == "prefix_affinity"
    lines = [r.getMessage() for r in caplog.records if "strategy prefix_affinity" in r.getMessage()]
    assert lines == [
        "routecore: routing logic prefixaware, strategy prefix_affinity load_factor=2 seed=1, "
        "mode active"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", 'strategy = "weighted_score"\n[params.weights]\nin_flight = 1.5\n'),
        ("c.yaml", "strategy: weighted_score\nparams: {weights: {in_flight: 1.5}}\n"),
    ],
)
def test_a_file_names_the_strategy_and_a_variable_overrides_it(
    stand_in: Any, tmp_path: Path, name: str, text: str
) -> None:
    from routecore.integrations.production_stack import settings

    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    found = settings.load({"ROUTECORE_CONFIG": str(tmp_path / name)})
    assert (found.strategy, found.params) == ("weighted_score", {"weights": {"in_flight": 1.5}})
    again = {"ROUTECORE_CONFIG": str(tmp_path / name), "ROUTECORE_PARAMS": '{"seed": 3}'}
    assert settings.load(again).params == {"seed": 3}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ROUTECORE_STRATEGY": "fastest"}, "unknown 'fastest'; valid: round_robin"),
        (
            {"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "sed=1"},
            "random takes no parameter 'sed'; valid: endpoint_weights, seed",
        ),
        (
            {"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "seed=x"},
            "random: parameter 'seed': Expected `int | null`, got `str`",
        ),
        ({"ROUTECORE_STRATEGY": "random", "ROUTECORE_PARAMS": "seed"}, "ROUTECORE_PARAMS='seed'"),
        ({"ROUTECORE_PARAMS": "seed=1"}, "need a strategy to belong to"),
        ({"ROUTECORE_MODE": "off"}, "ROUTECORE_MODE='off': Invalid enum value 'off'"),
        ({"ROUTECORE_LEASE_TIMEOUT": "soon"}, "ROUTECORE_LEASE_TIMEOUT='soon'"),
        ({"ROUTECORE_CONFIG": "none.toml"}, "ROUTECORE_CONFIG='none.toml': No such file"),
        (
            {"ROUTECORE_CONFIG": "bad.toml"},
            "bad.toml: Object contains unknown field `strateggy`; did you mean `strategy`?",
        ),
        (
            {"ROUTECORE_HOLD": "true", "ROUTECORE_HOLD_LIMITS": "max_wait=5"},
            "hold_limits: Object contains unknown field `max_wait`; did you mean `max_wait_s`?",
        ),
        (
            {"ROUTECORE_HOLD": "true", "ROUTECORE_HOLD_LIMITS": "max_wait_s=-5"},
            "hold: max_wait_s: expected from 0 to 86400, got -5",
        ),
        ({"ROUTECORE_HOLD_LIMITS": "max_wait_s=5"}, "hold_limits: need hold = true"),
        ({"ROUTECORE_STRATGY": "random"}, "did you mean ROUTECORE_STRATEGY?"),
        (
            {"ROUTECORE_STRATEGY": "prefix_affinity", "ROUTECORE_PARAMS": "load_factor=0.5"},
            "load_factor",
        ),
        (
            {"ROUTECORE_STRATEGY": "prefill_decode"},
            "no endpoint has a model label of prefill (there are default); set --static-model-lab",
        ),
    ],
)
def test_a_wrong_setting_ends_the_start_with_a_line_that_names_it(
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    said: str,
) -> None:
    Path("bad.toml").write_text('strateggy = "random"\n')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RouteError) as caught:
        stand_in.start("prefixaware", CALLBACKS, URLS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    # Where nobody catches it, its line is all that Python says.
    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == f"routecore: {caught.value}"


def test_a_variable_that_is_like_no_setting_is_named_and_ignored(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROUTECORE_WHATEVER", "1")
    # Kubernetes tells these to every pod beside a Service named routecore.
    monkeypatch.setenv("ROUTECORE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("ROUTECORE_SERVICE_PORT_HTTP", "80")
    monkeypatch.setenv("ROUTECORE_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("ROUTECORE_PORT_80_TCP", "tcp://10.0.0.1:80")
    stand_in.start("prefixaware", CALLBACKS, URLS)
    lines = {r.getMessage() for r in caplog.records if "is no setting here" in r.getMessage()}
    assert len(lines) == 1
    assert "ROUTECORE_WHATEVER is no setting here" in lines.pop()


def test_a_pair_behind_a_logic_that_knows_no_halves_needs_labelled_endpoints(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_router import service_discovery

    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefill_decode")

    class Labelled(service_discovery.StaticServiceDiscovery):
        def get_endpoint_info(self) -> list[Any]:
            found = super().get_endpoint_info()
            for at, endpoint in enumerate(found):
                endpoint.model_label = ("prefill", "decode")[at % 2]
            return found

    monkeypatch.setattr(service_discovery, "StaticServiceDiscovery", Labelled)
    stand_in.start("prefixaware", CALLBACKS, URLS)
    assert run(stand_in.handle(BODY, "1", good)) in URLS[1::2]


@pytest.mark.parametrize("strategy", [*ROUTERS])
@pytest.mark.parametrize("logic", ["roundrobin", "prefixaware"])
def test_every_strategy_routes_behind_every_way_of_calling(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, logic: str
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", strategy)
    stand_in.start(logic, CALLBACKS, URLS)
    before = figure("routecore_decisions_total", strategy=strategy, outcome="strategy")
    assert run(stand_in.handle(BODY, "1", good)) in URLS
    after = figure("routecore_decisions_total", strategy=strategy, outcome="strategy")
    assert after == before + 1


def test_a_logic_that_is_not_given_the_body_routes_by_it_all_the_same(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTECORE_STRATEGY", "prefix_affinity")
    stand_in.start("roundrobin", CALLBACKS, URLS)

    async def several() -> set[str]:
        return {await stand_in.handle(BODY, str(n), good) for n in range(8)}

    assert len(run(several())) == 1


def launched(*arguments: str) -> str:
    code = (
        "import routecore.integrations.production_stack.__main__ as m, vllm_router.app as host\n"
        "host.main = lambda: print('HOST', sys.argv[1:])\n"
        f"m.main({[*arguments]!r})\n"
        "from routecore.integrations.production_stack import settings\n"
        "s = settings.load(); print(s.strategy, s.params, s.mode)\n"
    )
    return subprocess_says(code, STAND_INS)


def test_the_launcher_adds_to_the_hosts_flags_what_is_needed() -> None:
    said = launched("--port", "9", "--strategy", "least_connections", "--param", "ties=first")
    assert (
        f"['--port', '9', '--routing-logic', 'prefixaware', '--callbacks', '{CALLBACKS}', "
        "'--max-instance-failover-reroute-attempts', '1']" in said
    )
    assert "least_connections {'ties': 'first'} active" in said


def test_the_launcher_leaves_the_users_own_flags_alone() -> None:
    flags = ("--callbacks=mine.callbacks", "--max-instance-failover-reroute-attempts=0")
    said = launched(*flags, "--routing-logic", "session", "--mode", "shadow")
    assert f"HOST {[*flags, '--routing-logic', 'session']}\n" in said
    assert "equal {} shadow" in said


def test_the_launcher_knows_loadaware_where_the_host_does_not() -> None:
    said = launched("--routing-logic", "loadaware")
    assert "'--routing-logic', 'prefixaware', " in said


def test_the_launcher_names_a_beta_that_nothing_goes_by() -> None:
    said = launched("--routing-logic", "loadaware", "--loadaware-beta", "2.5")
    assert "--loadaware-beta 2.5 is not used: expected_latency" in said
    assert "'--loadaware-beta'" not in said


def test_the_launcher_refuses_a_wrong_parameter_in_one_line() -> None:
    said = launched("--strategy", "random", "--param", "tie=first")
    assert said == "error: random takes no parameter 'tie'; valid: endpoint_weights, seed\n"
