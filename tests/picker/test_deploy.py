"""The manifests that are shipped belong together, and say what the picker takes."""

from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from routecore.integrations.envoy.endpoints.address import listening  # noqa: E402
from routecore.integrations.envoy.endpoints.source import InferencePool  # noqa: E402
from routecore.integrations.envoy.health import EXT_PROC  # noqa: E402
from routecore.integrations.envoy.settings import load  # noqa: E402

DEPLOY = Path(__file__).parents[2] / "deploy"


def objects() -> dict[str, dict[str, Any]]:
    found = {}
    for name in yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]:
        for made in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()):
            assert made["kind"] not in found
            found[made["kind"]] = made
    return found


def test_the_manifests_name_each_other(tmp_path: Path) -> None:
    found = objects()
    deployment, service = found["Deployment"], found["Service"]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    text = found["ConfigMap"]["data"]["picker.yaml"]
    (tmp_path / "picker.yaml").write_text(text)
    settings = load({}, {"ROUTECORE_CONFIG": str(tmp_path / "picker.yaml")})
    assert ports == {"grpc": listening(settings.listen)[1], "metrics": settings.metrics_port}
    (mount,) = container["volumeMounts"]
    assert container["args"] == ["picker", "--config", f"{mount['mountPath']}/picker.yaml"]

    pool = found["InferencePool"]
    assert settings.source() == InferencePool(pool["metadata"]["name"], None)
    reference = pool["spec"]["endpointPickerRef"]
    assert reference["name"] == service["metadata"]["name"]
    assert reference["port"]["number"] == service["spec"]["ports"][0]["port"]
    (backend,) = found["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert (backend["kind"], backend["name"]) == ("InferencePool", pool["metadata"]["name"])
    (parent,) = found["HTTPRoute"]["spec"]["parentRefs"]
    assert parent["name"] == found["Gateway"]["metadata"]["name"]

    labels = template["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    account = found["ServiceAccount"]["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == account
    assert found["RoleBinding"]["subjects"][0]["name"] == account
    assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]
    grace = template["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.drain_delay + settings.drain_timeout
    probes = [container[f"{name}Probe"]["grpc"] for name in ("startup", "liveness", "readiness")]
    assert {probe["service"] for probe in probes} == {"liveness", "readiness"}
    assert {probe["port"] for probe in probes} == {ports["grpc"]}


def test_the_role_allows_what_is_asked_and_no_more() -> None:
    rules = {
        (group, resource): set(rule["verbs"])
        for rule in objects()["Role"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    asked = [
        ("inference.networking.k8s.io", "inferencepools"),
        ("", "pods"),
        ("discovery.k8s.io", "endpointslices"),
    ]
    assert rules == {key: {"get", "list", "watch"} for key in asked}


@pytest.mark.parametrize("name", ["static", "dns"])
def test_the_configurations_ask_for_the_picker_s_own_service(name: str) -> None:
    text = (DEPLOY / f"envoy/{name}.yaml").read_text()
    clusters = {
        cluster["name"]: cluster for cluster in yaml.safe_load(text)["static_resources"]["clusters"]
    }
    (check,) = clusters["picker"]["health_checks"]
    assert check["grpc_health_check"]["service_name"] == EXT_PROC
