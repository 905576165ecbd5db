"""Values for production-stack's own chart: names that exist, on both sides."""

from pathlib import Path
from typing import Any

import pytest
from routecore.integrations.shared.settings import Settings

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).parents[1] / "deploy/production-stack"
FILES = sorted(FOLDER.glob("*.yaml"))
# Keys of `routerSpec` that the chart's values.schema.json has, as of the commit in the docs.
KNOWN = {"repository", "tag", "replicaCount", "routingLogic", "extraArgs", "env"}


def values(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def environment(path: Path) -> dict[str, str]:
    """As a container sees it, with every secret's text for its key."""
    seen: dict[str, str] = {}
    for entry in values(path)["routerSpec"]["env"]:
        text = entry["value"] if "value" in entry else entry["valueFrom"]["secretKeyRef"]["key"]
        for name, known in seen.items():  # Kubernetes knows those above only
            text = text.replace(f"$({name})", known)
        assert "$(" not in text, entry
        seen[entry["name"]] = text
    return seen


def test_there_are_values_for_both_ways() -> None:
    assert [path.stem for path in FILES] == ["replicas-headless", "replicas-redis"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_values_turn_sharing_on_by_settings_that_exist(path: Path) -> None:
    found = values(path)
    router = found["routerSpec"]
    assert set(found) <= {"routerSpec", "extraObjects"} and set(router) == KNOWN
    assert router["replicaCount"] > 1
    # As the docs have it; what it names is tried where production-stack itself is installed.
    docs = (FOLDER.parents[1] / "docs/production-stack.md").read_text()
    assert "--callbacks " + router["extraArgs"][1] in docs and len(router["extraArgs"]) == 2
    assert router["extraArgs"][0] == "--callbacks"
    given = environment(path)
    assert {name for name in given if name.startswith("ROUTECORE_")} <= {
        f"ROUTECORE_{field.upper()}" for field in Settings.__struct_fields__
    }
    settings = Settings.of(Settings.read(given))
    assert settings.replicas is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_address_is_one_that_a_channel_takes(path: Path) -> None:
    pytest.importorskip("redis", reason="the extra `replicas` is not installed")
    pytest.importorskip("zmq", reason="the extra `replicas` is not installed")
    from routecore.replicas import channel_of

    address = environment(path)["ROUTECORE_REPLICAS"]
    assert channel_of(address).every == 0.05
    services = {made["metadata"]["name"]: made for made in values(path).get("extraObjects", [])}
    if address.startswith("zmq"):
        host, _, port = address.removeprefix("zmq://").partition(":")
        spec = services[host]["spec"]
        assert spec["clusterIP"] == "None" and spec["publishNotReadyAddresses"] is True
        assert spec["ports"][0]["port"] == int(port)
    else:
        assert ":password@" in address


@pytest.mark.parametrize("page", ["replicas.md", "production-stack.md"])
def test_the_docs_name_the_files(page: str) -> None:
    text = (FOLDER.parents[1] / "docs" / page).read_text()
    assert all(f"deploy/production-stack/{path.name}" in text for path in FILES)
