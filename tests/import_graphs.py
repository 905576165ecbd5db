"""Which file of the project reads which: from `import` in Python, from paths in Rust."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Graph = dict[str, set[str]]


def python_graph(root: Path = ROOT / "python") -> Graph:
    """Module → modules that it imports, at its top or inside a function."""
    modules = {_module(path.relative_to(root)): path for path in root.rglob("*.py")}
    graph: Graph = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            graph[name] |= set(_imported(node, modules)) - {name}
    return graph


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            # `from routecore import _core` reads the compiled module, not the package's file.
            if full in modules:
                yield full
            elif node.module in modules and alias.name != "_core":
                yield node.module


def rust_graph(source: Path) -> Graph:
    """Module of a crate, with `/` between, → modules whose items it names; "" is `lib.rs`.

    A re-export is no use of the module but a second name of its item, so it is seen through.
    """
    modules: dict[tuple[str, ...], str] = {}
    for path in source.rglob("*.rs"):
        parts = path.relative_to(source).with_suffix("").parts
        if parts[-1].endswith("tests"):
            continue
        modules[parts[:-1] if parts[-1] in ("lib", "mod") else parts] = _code(path)
    other_names: dict[tuple[str, ...], tuple[str, ...]] = {}
    for at, text in modules.items():
        for tree in re.findall(r"^\s*pub(?:\([^)]*\))? use ([^;]+);", text, re.M):
            for path in _paths(tree):
                full = _absolute(at, path)
                other_names[(*at, full[-1])] = full
    graph: Graph = {"/".join(at): set() for at in modules}
    for at, text in modules.items():
        named = [p for tree in re.findall(r"^\s*use ([^;]+);", text, re.M) for p in _paths(tree)]
        named += [p.split("::") for p in re.findall(r"\b(?:crate|super)::[\w:]*\w", text)]
        for path in named:
            if path[0] in ("crate", "super", "self") or (*at, path[0]) in modules:
                found = _file_of(_absolute(at, path), modules, other_names)
                if found is not None and found != at:
                    graph["/".join(at)].add("/".join(found))
    return graph


def _code(path: Path) -> str:
    text = re.sub(r"//[^\n]*", "", path.read_text("utf-8"))
    return re.sub(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", "", text, flags=re.S)


def _paths(tree: str) -> list[list[str]]:
    """The paths of a `use`: `a::{b, c::d}` → `a::b` and `a::c::d`."""
    tree = " ".join(tree.split())
    if not (braced := re.match(r"^([\w:]*?)(?:::)?\{(.*)\}$", tree)):
        return [tree.split(" as ")[0].split("::")]
    parts, depth = [""], 0
    for letter in braced[2]:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    before = braced[1].split("::") if braced[1] else []
    return [[*before, *path] for part in parts if part.strip() for path in _paths(part)]


def _absolute(at: tuple[str, ...], path: list[str]) -> tuple[str, ...]:
    base, rest = list(at), list(path)
    if rest[0] == "crate":
        base, rest = [], rest[1:]
    while rest and rest[0] in ("super", "self"):
        base = base[:-1] if rest.pop(0) == "super" else base
    return (*base, *rest)


def _file_of(
    path: tuple[str, ...],
    modules: dict[tuple[str, ...], str],
    other_names: dict[tuple[str, ...], tuple[str, ...]],
) -> tuple[str, ...] | None:
    for _ in range(6):  # a re-export of a re-export, and so on
        for end in range(len(path), 0, -1):
            if path[:end] in other_names and path[:end] not in modules:
                path = (*other_names[path[:end]], *path[end:])
                break
        else:
            break
    while path and path not in modules:
        path = path[:-1]
    return path if path in modules else None


def circles(graph: Graph) -> list[list[str]]:
    """The sets of files each of which reads, by some way, all the others."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            here = ahead.pop()
            if here not in seen:
                seen.add(here)
                ahead += graph.get(here, ())
        reach[start] = seen
    found = {
        frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph if a in reach[a]
    }
    return sorted(sorted(names) for names in found)
