"""What a picker can't honour is refused at its start, in a line; what it prints, Envoy takes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from routecore.cli import main
from routecore.errors import RouteError

pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from routecore.integrations.envoy.endpoints import source
from routecore.integrations.envoy.settings import load
from world import ENVOY, needs_envoy

ROOT = Path(__file__).parents[2]
FIXED = {"endpoints": "10.0.0.1:8000"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "endpoints: expected IP:PORT"),
        ({"endpoints": "engine-1:8000"}, "dns:HOST:PORT"),
        ({"endpoints": "10.0.0.1"}, "expected IP:PORT"),
        ({"endpoints": "10.0.0.1:0"}, "10.0.0.1"),
        ({"endpoints": "10.0.0.1:99999"}, "99999"),
        ({"endpoints": "http://10.0.0.1:8000/v1"}, "alone"),
        ({"endpoints": "dns:engines"}, "dns:HOST:PORT"),
        ({"endpoints": "dns:engines:http"}, "port"),
        ({"endpoints": "pool:"}, "pool:[NAMESPACE/]NAME"),
        ({"endpoints": "pods:app:8000"}, "LABEL=VALUE"),
        ({"endpoints": "pods:app=x"}, "LABEL=VALUE"),
        ({"endpoints": "service::80"}, "service:"),
        ({**FIXED, "strategy": "fastest"}, "unknown 'fastest'"),
        ({**FIXED, "params": {"load_factr": 2}}, "load_factr"),
        ({**FIXED, "listen": "9002"}, "HOST:PORT"),
        ({**FIXED, "listen": "0.0.0.0:x"}, "address"),
        ({**FIXED, "fallbacks": 99}, "fallbacks: expected a number from 0 to 8"),
        ({**FIXED, "workers": 0}, "workers"),
        ({**FIXED, "workers": 2, "listen": "127.0.0.1:0"}, "port"),
        ({**FIXED, "chunk_bytes": 1}, "chunk_bytes"),
        ({**FIXED, "scrape_every": 0.001}, "scrape_every"),
        ({**FIXED, "scrape_every": -1}, "scrape_every"),
        ({**FIXED, "hold_limits": {"max_requests": 5}}, "hold = true"),
        ({**FIXED, "hold": True, "hold_limits": {"max_request": 5}}, "max_requests"),
        ({**FIXED, "hold": True, "mode": "shadow"}, "shadow"),
        ({**FIXED, "tls_key": "key.pem"}, "tls_certificate"),
        ({**FIXED, "fallback": 1}, "did you mean `fallbacks`"),
        ({**FIXED, "drain_delay": float("nan")}, "drain_delay"),
        ({"endpoints": "0.0.0.0:8000"}, "nobody is reached there"),
        ({"endpoints": "10.0.0.1:80 10.0.0.2:80"}, "10.0.0.1:80 10.0.0.2:80"),
        ({"endpoints": "dns:http://engines:8000"}, "without http://"),
        ({"endpoints": "pool:a/b/c"}, "pool:[NAMESPACE/]NAME"),
        ({"endpoints": "pool:Llama_3"}, "pool:[NAMESPACE/]NAME"),
        ({"endpoints": "pool:Prod/llama"}, "'Prod' is no name of a namespace"),
        ({"endpoints": "service:x:99999"}, "port from 1 to 65535"),
        ({"endpoints": "pods:/app=x:80"}, "namespace"),
        ({**FIXED, "metrics_port": 9002}, "port 9002 is that of listen"),
        ({**FIXED, "metrics_port": 9001, "workers": 2}, "port 9002 is that of listen"),
        ({**FIXED, "metrics_port": 65535, "workers": 2}, "worker 1 would be 65536"),
        ({**FIXED, "health_port": 9002}, "port 9002 is that of listen"),
        ({**FIXED, "health_port": 9090}, "port 9090 is that of metrics_port"),
        ({**FIXED, "workers": 2, "replicas": "zmq://peers:5570"}, "not of 2 workers"),
        ({**FIXED, "strategy": "round_robin", "kv_events_port": 5557}, "round_robin reads none"),
        ({**FIXED, "tokenizer": "/models/m"}, "only KV events"),
        ({**FIXED, "kv_replay_port": 5558}, "only KV events"),
        ({**FIXED, "metrics_path": "metrics"}, "expected /"),
        ({**FIXED, "mode": "shadow", "shadow_file": "/nowhere/x.jsonl"}, "cannot write into"),
        ({**FIXED, "strategy": "expected-latency"}, "unknown 'expected-latency'"),
        ({**FIXED, "params": {"load_factor": "high"}}, "load_factor"),
        ({**FIXED, "hold": True, "hold_limits": {"max_wait": 1}}, "did you mean `max_wait_s`"),
        ({**FIXED, "chunk_bytes": "62kB"}, "chunk_bytes"),
    ],
)
def test_a_setting_that_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(RouteError) as error:
        load(given, {})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.1:80,10.0.0.2:80", 2),
        ("http://10.0.0.1:80", 1),
        ("fleet.yaml", source.File(Path("fleet.yaml"))),
        ("dns:engines.default.svc:8000", source.Name("engines.default.svc", 8000)),
        ("pool:llama", source.InferencePool("llama", None)),
        ("pool:prod/llama", source.InferencePool("llama", "prod")),
        ("service:prod/llama:http", source.Service("llama", "prod", "http")),
        ("service:llama", source.Service("llama", None, None)),
        ("pods:app=vllm:8000", source.Pods("app=vllm", None, 8000)),
        ("pods:prod/a.b/c=d,e=f:8000", source.Pods("a.b/c=d,e=f", "prod", 8000)),
        ("pods:a.b/c=d:8000", source.Pods("a.b/c=d", None, 8000)),
    ],
)
def test_sources(text: str, found: Any) -> None:
    made = source.parse(text)
    assert (len(made.addresses) if isinstance(made, source.Fixed) else made) == found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WORKER", "2", "did you mean ROUTECORE_WORKERS"),
        ("WORKERS", "two", "Expected `int`"),
        ("HOLD", "maybe", "Expected `bool`"),
        ("REPLICAS", "kafka://a", "expected redis://"),
        ("KV_EVENTS_PORT", "0", "port from 1 to 65535"),
    ],
)
def test_a_variable_that_is_refused(name: str, value: str, expected: str) -> None:
    from prometheus_client import CollectorRegistry
    from routecore.integrations.envoy.server import Server

    with pytest.raises(RouteError) as error:
        Server(load(FIXED, {f"ROUTECORE_{name}": value}), CollectorRegistry())
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_variables_and_file_and_command_line(tmp_path: Path) -> None:
    file = tmp_path / "picker.yaml"
    file.write_text("endpoints: ['10.0.0.1:80']\nfallbacks: 5\nworkers: 3\nstrategy: random\n")
    environ = {"ROUTECORE_CONFIG": str(file), "ROUTECORE_FALLBACKS": "4", "ROUTECORE_WORKERS": "2"}
    found = load({"workers": 1}, environ)
    assert (found.workers, found.fallbacks, found.strategy) == (1, 4, "random")


@pytest.mark.parametrize(
    "words",
    [
        ["--endpoints", "nowhere.yaml"],
        ["--endpoints", "10.0.0.1:80", "--strategy", "fastest"],
        ["--endpoints", "10.0.0.1:80", "--param", "nonsense"],
        ["--endpoints", "pool:llama", "--print-envoy", "8080"],
        ["--endpoints", "10.0.0.1:80", "--print-envoy", "9002"],
        ["--endpoints", "10.0.0.1:80", "--print-envoy", "8080", "--listen", "127.0.0.1:0"],
        ["--endpoints", "10.0.0.1:80", "--buffered"],
        ["--endpoints", "10.0.0.1:80", "--config", "nowhere.yaml"],
        ["--endpoints", "10.0.0.1:80", "--listen", "example.invalid:9002"],
        ["--endpoints", "10.0.0.1:80", "--listen", "192.0.2.1:9002"],
        ["--endpoints", "10.0.0.1:80", "--param", "load_factor=-1"],
        [],
    ],
)
def test_the_command_refuses_in_a_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = CliRunner().invoke(main, ["picker", "--quiet", "--metrics-port", "0", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def valid(config: Path) -> None:
    assert ENVOY is not None
    words = [ENVOY, "--mode", "validate", "-c", str(config), "--log-level", "error"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_envoy
@pytest.mark.parametrize(
    "words",
    [
        ["--endpoints", "127.0.0.1:8001,127.0.0.1:8002"],
        ["--endpoints", "fleet.yaml", "--fallbacks", "0"],
        ["--endpoints", "dns:engines.default.svc:8000", "--workers", "2"],
        ["--endpoints", "127.0.0.1:8001", "--usage", "--hold"],
        ["--endpoints", "127.0.0.1:8001", "--buffered"],
        ["--endpoints", "[::1]:8001", "--listen", "[::]:9002"],
    ],
)
def test_envoy_takes_the_configuration_that_is_printed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.yaml").write_text("endpoints: [10.0.0.1:8000, {address: '10.0.0.2:8000'}]\n")
    result = CliRunner().invoke(main, ["picker", *words, "--print-envoy", "8080"])
    assert result.exit_code == 0, result.output
    json.loads(result.output)
    config = tmp_path / "envoy.json"
    config.write_text(result.output)
    valid(config)


@needs_envoy
@pytest.mark.parametrize(
    "config", sorted((ROOT / "deploy/envoy").glob("*.yaml")), ids=lambda p: p.name
)
def test_envoy_takes_the_configurations_that_are_shipped(config: Path) -> None:
    valid(config)
