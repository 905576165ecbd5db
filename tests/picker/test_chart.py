"""The Helm chart, by Helm's own engine: it renders what the plain manifests say."""

from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
helm = pytest.importorskip("helm_python", reason="no Helm: pip install helm-python-sdk")
pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from helm_python.chart import Chart, lint  # noqa: E402
from routecore.integrations.envoy.settings import load  # noqa: E402
from test_deploy import DEPLOY, well_formed  # noqa: E402

CHART = DEPLOY / "helm/routecore-picker"
OWN = {"helm.sh/chart", "app.kubernetes.io/name", "app.kubernetes.io/instance"}
OWN |= {"app.kubernetes.io/managed-by", "checksum/settings"}
Objects = dict[tuple[str, str], dict[str, Any]]


def rendered(values: dict[str, Any] | None = None, name: str = "routecore-picker") -> Objects:
    chart = Chart.load(CHART)
    chart.validate_schema(values)
    files = chart.render(values, name=name, namespace="prod")
    texts = [text for file, text in files.items() if file.endswith(".yaml")]
    return named(made for text in texts for made in yaml.safe_load_all(text))


def plain(*names: str) -> Objects:
    texts = [(DEPLOY / "kubernetes" / name).read_text() for name in names]
    return named(made for text in texts for made in yaml.safe_load_all(text))


def named(objects: Any) -> Objects:
    return {(made["kind"], made["metadata"]["name"]): made for made in objects if made}


def compared(made: Any) -> Any:
    """Without what only a chart has."""
    if isinstance(made, dict):
        kept = {name: compared(value) for name, value in made.items() if name not in OWN}
        if "picker.yaml" in kept:
            kept["picker.yaml"] = yaml.safe_load(kept["picker.yaml"])
        kept.pop("image", None)  # of the plain ones kustomize sets it
        if kept.get("labels") == {"app": "routecore-picker"}:
            del kept["labels"]
        return kept
    return [compared(item) for item in made] if isinstance(made, list) else made


def test_helm_finds_no_fault() -> None:
    report = lint(CHART, strict=True, kube_version="v1.30.0")
    assert not report["errors"]
    assert [note for note in report["messages"] if "icon" not in note["error"]] == []


def test_it_renders_the_plain_manifests() -> None:
    found = rendered({"route": {"create": True}})
    expected = plain("picker.yaml", "gateway.yaml")
    del expected["Gateway", "inference"]  # the operator's own
    assert found.keys() == expected.keys()
    for key, made in expected.items():
        assert compared(found[key]) == compared(made), key


def test_its_version_is_the_package_s() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == kustomization["images"][0]["newTag"]


@pytest.mark.parametrize(
    "values",
    [
        {"tls": {"secretName": "cert"}},
        {"shareLoad": False, "replicas": 1, "pool": {"create": False, "name": "p"}},
        {"settings": {"endpoints": "service:x", "drain_timeout": 1.5, "workers": 2}},
        {"settings": {"hold": True, "hold_limits": {"max_requests": 5}}, "podLabels": {"a": "b"}},
        {"env": [{"name": "A", "value": "b"}], "nodeSelector": {"a": "b"}, "affinity": {}},
        {
            "tolerations": [{"key": "x"}],
            "priorityClassName": "p",
            "imagePullSecrets": [{"name": "s"}],
        },
    ],
)
def test_values(values: dict[str, Any], tmp_path: Path) -> None:
    found = rendered(values, name="mine")
    for made in found.values():
        well_formed(made)
    text = found["ConfigMap", "mine"]["data"]["picker.yaml"]
    (tmp_path / "picker.yaml").write_text(text)
    settings = yaml.safe_load(text)
    assert settings.items() >= values.get("settings", {}).items()
    if "tls" in values:
        pair = (settings.pop("tls_certificate"), settings.pop("tls_key"))
        assert pair == ("/etc/routecore-tls/tls.crt", "/etc/routecore-tls/tls.key")
    shares = values.get("shareLoad", True) and settings.get("workers", 1) == 1
    assert ("replicas" in settings) == shares
    assert (("Service", "mine-peers") in found) == shares
    load(settings, {})
    pod = found["Deployment", "mine"]["spec"]["template"]["spec"]
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > settings.get("drain_delay", 5) + settings.get("drain_timeout", 20)
    probe = pod["containers"][0]["readinessProbe"]["grpc"]["port"]
    assert probe == (settings["health_port"] if "tls" in values else 9002)


@pytest.mark.parametrize(
    "values",
    [
        {"replcas": 3},
        {"replicas": 0},
        {"pool": {"ports": []}},
        {"pool": {"failureMode": "Open"}},
        {"route": {"path": "x"}},
        {"tls": {"secret": "x"}},
    ],
)
def test_mistakes_are_refused(values: dict[str, Any]) -> None:
    from helm_python.errors import HelmError

    with pytest.raises(HelmError):
        rendered(values)
