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
            found.setdefault(made["kind"], made)
    return found


def every() -> list[dict[str, Any]]:
    return [
        made
        for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for made in yaml.safe_load_all(file.read_text())
        if made["kind"] != "Kustomization"
    ]


# Python's model of each kind: what the cluster's API knows, by its generated client.
MODELS = {
    "ConfigMap": "V1ConfigMap",
    "Deployment": "V1Deployment",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "Service": "V1Service",
    "ServiceAccount": "V1ServiceAccount",
}


def well_formed(made: dict[str, Any]) -> None:
    """The object survives the way through the API's own types: no field is misspelt or lacking."""
    client = pytest.importorskip("kubernetes_asyncio.client")
    if made["kind"] not in MODELS:
        return
    api = client.ApiClient.__new__(client.ApiClient)
    api.configuration = client.Configuration()
    api.client_side_validation = True
    read = api._ApiClient__deserialize(made, MODELS[made["kind"]])
    assert api.sanitize_for_serialization(read) == made


@pytest.mark.parametrize("made", every(), ids=lambda made: made["metadata"]["name"])
def test_each_object_is_one_that_a_cluster_knows(made: dict[str, Any]) -> None:
    well_formed(made)


def test_a_misspelt_field_would_be_seen() -> None:
    pytest.importorskip("kubernetes_asyncio.client")
    service = next(made for made in every() if made["kind"] == "Service")
    for spec in ({**service["spec"], "selectr": {}}, {**service["spec"], "ports": [{"prt": 1}]}):
        with pytest.raises((AssertionError, ValueError, TypeError)):
            well_formed({**service, "spec": spec})


def test_the_manifests_name_each_other(tmp_path: Path) -> None:
    found = objects()
    deployment, service = found["Deployment"], found["Service"]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    text = found["ConfigMap"]["data"]["picker.yaml"]
    (tmp_path / "picker.yaml").write_text(text)
    settings = load({}, {"ROUTECORE_CONFIG": str(tmp_path / "picker.yaml")})
    peers = next(made for made in every() if made["metadata"]["name"].endswith("-peers"))
    (peer,) = peers["spec"]["ports"]
    own = {"grpc": listening(settings.listen)[1], "metrics": settings.metrics_port}
    assert ports == {**own, "peers": peer["port"]}
    assert settings.replicas == f"zmq://{peers['metadata']['name']}:{peer['port']}"
    assert (peers["spec"]["clusterIP"], peers["spec"]["publishNotReadyAddresses"]) == ("None", True)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["args"] == ["picker", "--config", f"{mounts['config']}/picker.yaml"]
    assert {volume["name"] for volume in template["spec"]["volumes"]} == mounts.keys()

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


def test_the_image_has_what_it_copies_and_installs() -> None:
    """Without a container runtime: the recipe's files and extras are there, its ports are ours."""
    import tomllib

    root = DEPLOY.parent
    lines = (DEPLOY / "image/Containerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied: set[str] = set()
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((root / source).exists() for source in sources)
            copied.update(sources)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = {project["readme"], *project["license-files"], "pyproject.toml", "Cargo.lock"}
    assert named <= copied
    members = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["members"]
    assert {member.split("/")[0] for member in members} <= copied
    (install,) = [rest for word, rest in steps if word == "RUN" and "pip install" in rest]
    extras = install.partition("'.[")[2].partition("]'")[0].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    (exposed,) = [rest.split() for word, rest in steps if word == "EXPOSE"]
    settings = load({"endpoints": "10.0.0.1:80"}, {})
    assert {str(listening(settings.listen)[1]), str(settings.metrics_port)} <= set(exposed)
    assert steps[-1] == ["CMD", '["picker"]']
