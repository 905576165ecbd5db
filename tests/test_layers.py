"""No arrow between files points up, and none closes a circle."""

import re
from pathlib import Path

import pytest
from import_graphs import ROOT, circles, python_graph, rust_graph

CRATES = {"core": set(), "replay": {"core"}, "bindings": {"core", "replay"}}
"""Crate → crates of ours that it may use."""

FLOORS = (
    {"__main__"},
    {"cli"},
    {"demo", "integrations"},
    {"replay", "fleet"},
    {
        "routers",
        "endpoints",
        "hold",
        "kv_events",
        "replicas",
        "interface",
        "requests",
        "singleton",
        "old_paths",
    },
    {"errors", "process", "main_interpreter", "uncopied", "whole_file", "_core"},
)
"""Packages and modules of `routecore`, the highest floor first; an import goes down or along."""


def test_no_python_file_reads_itself_by_a_detour() -> None:
    assert circles(python_graph()) == []


def test_no_python_import_goes_up() -> None:
    floor = {name: at for at, names in enumerate(FLOORS) for name in names}
    for module, imported in python_graph().items():
        here = module.split(".")[1:2]
        if not here:  # the package's own file is the front of all
            continue
        for other in imported:
            there = other.split(".")[1:2]
            if there:
                assert floor[there[0]] >= floor[here[0]], f"{module} imports {other}"


@pytest.mark.parametrize("crate", CRATES)
def test_no_rust_file_reads_itself_by_a_detour(crate: str) -> None:
    assert circles(rust_graph(ROOT / "rust" / crate / "src")) == []


@pytest.mark.parametrize("crate", CRATES)
def test_a_crate_uses_lower_ones_only(crate: str) -> None:
    named = {"routecore": "core", "routecore_replay": "replay", "pyo3": "python"}
    allowed = CRATES[crate] | ({"python"} if crate == "bindings" else set())
    for path in (ROOT / "rust" / crate / "src").rglob("*.rs"):
        text = re.sub(r"//[^\n]*", "", path.read_text("utf-8"))
        for word in re.findall(r"\b(routecore|routecore_replay|pyo3)::", text):
            assert named[word] in allowed, f"{path.relative_to(ROOT)} uses {word}"


def test_the_walkers_see_a_circle(tmp_path: Path) -> None:
    python, rust = tmp_path / "python" / "p", tmp_path / "src"
    python.mkdir(parents=True)
    rust.mkdir()
    (python / "__init__.py").write_text("")
    (python / "a.py").write_text("from p.b import thing\n")
    (python / "b.py").write_text("def late():\n    from p import a\n")
    assert circles(python_graph(tmp_path / "python")) == [["p.a", "p.b"]]
    (rust / "lib.rs").write_text("mod a;\nmod b;\npub use a::Shown;\n")
    (rust / "a.rs").write_text("use crate::{b::Other, c};\npub struct Shown;\n")
    (rust / "b.rs").write_text("// crate::a\nfn f() { let _: Option<crate::Shown> = None; }\n")
    assert circles(rust_graph(rust)) == [["a", "b"]]
    (rust / "b.rs").write_text("// crate::a\npub struct Other;\n")
    assert circles(rust_graph(rust)) == []


def test_no_file_is_longer_than_350_lines() -> None:
    paths = [*ROOT.glob("rust/*/src/**/*.rs"), *ROOT.glob("python/**/*.py")]
    assert len(paths) > 200
    lengths = {p: len(p.read_text("utf-8").splitlines()) for p in paths if "tests" not in p.name}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 350} == {}
