"""Prints the licence texts of all crates that are linked into the wheel, one after the other."""

import json
import subprocess
from pathlib import Path

NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def linked() -> set[str]:
    """Ids of the crates that the bindings contain, not those that only build or test them."""
    command = [
        "cargo",
        "metadata",
        "--format-version=1",
        "--locked",
        "--features=routecore-python/abi3",
    ]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(at for at, package in packages.items() if package["name"] == "routecore-python")
    found, left = set(), [root]
    while left:
        at = left.pop()
        if at in found or any("proc-macro" in t["kind"] for t in packages[at]["targets"]):
            continue
        found.add(at)
        for dep in nodes[at]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                left.append(dep["pkg"])
    PACKAGES.update(packages)
    return {at for at in found if packages[at]["source"]}


PACKAGES: dict[str, dict[str, str]] = {}


def main() -> None:
    """Every crate: name, version, licence, and the files that it brings."""
    print("routecore's wheels contain compiled code of the crates below, under these licences.")
    for at in sorted(linked(), key=lambda at: PACKAGES[at]["name"]):
        package = PACKAGES[at]
        print(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license']}")
        folder = Path(package["manifest_path"]).parent
        files = [p for p in sorted(folder.iterdir()) if p.name.upper().startswith(NAMES)]
        if not files:
            raise SystemExit(f"{package['name']} brings no licence text")
        for path in files:
            print(f"\n--- {path.name}\n\n{path.read_text(errors='replace').strip()}")


if __name__ == "__main__":
    main()
