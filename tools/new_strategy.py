"""Writes what a new strategy needs: `make new-strategy NAME=foo`.

The new one takes the endpoint with the fewest requests in flight, and passes all tests as it is.
Change its rule in the Rust file, then its twin in `tests/reference.py`, until they agree again.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

RULE = """//! {title}: say here what it uses.

use super::choose::{{Ties, least_loaded, load_scores}};
use super::{{Key, Params, Rule, Scored, View}};
use crate::error::RouteError;
use crate::rng::Rng;

/// The endpoint with the fewest requests in flight.
///
/// Cost: in flight, or (in flight + 1) / weight where capacity weights are given; least wins.
/// Ties: a uniform draw. Unknown load: never wins while anything is known. Source: say whose idea.
#[derive(Debug, Clone)]
pub struct {camel};

impl Rule for {camel} {{
    const NAME: &'static str = "{name}";
    const PARAMS: &'static str = "endpoint_weights";

    fn build(_: &mut Params) -> Result<Self, RouteError> {{
        Ok(Self)
    }}

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {{
        least_loaded(view, Ties::Random, rng)
    }}

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {{
        load_scores(view)
    }}
}}

#[cfg(test)]
mod tests {{
    use super::*;

    use crate::stats::{{Stat, StatTable}};
    use crate::strategy::Candidates;

    #[test]
    fn the_least_loaded_wins() {{
        let mut table = StatTable::scratch(3);
        table.fill(Stat::InFlight, [2.0, 1.0, 3.0].into_iter());
        let candidates = Candidates::new(vec![0, 1, 2], vec![7, 8, 9], Vec::new(), vec![0, 1, 2]);
        let view = View::new(&table, &candidates);
        let chosen = {camel}.select(view, &Key::None, &mut Rng::new(1));
        assert_eq!(chosen, Some(1));
        assert_eq!({camel}.score(view, &Key::None)[1].score, 1.0);
    }}
}}
"""

CLASS = '''

class {camel}Router(CompiledRouter):
    """The endpoint with the fewest requests in flight: say here what it uses.

    The lowest score wins. `explain` shows `in_flight` requests, and the `weight` where there is
    one.

    Args:
        endpoint_weights: URL → capacity; the least (in flight + 1) / weight wins.
        seed: Makes ties repeatable.
    """

    strategy = "{name}"

    def __init__(
        self, *, endpoint_weights: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        self._build(seed, endpoint_weights=endpoint_weights)
'''

TWIN = """    "{name}": Twin(
        may=lambda e, s, r, c: least(costs(loads(e, s, r), c)),
        scores=lambda e, s, r, c: costs(loads(e, s, r), c),
    ),
"""


def edit(path: str, *changes: tuple[str, str]) -> None:
    """Put text behind the last place that a pattern matches, once for each pair."""
    file = ROOT / path
    text = file.read_text("utf-8")
    for pattern, new in changes:
        found = list(re.finditer(pattern, text, re.MULTILINE | re.DOTALL))
        if not found:
            sys.exit(f"{path}: nothing like {pattern!r}, behind which to write; do it by hand")
        at = found[-1].end()
        text = text[:at] + new + text[at:]
    file.write_text(text, "utf-8")
    print(f"  {path}")


def main(name: str) -> None:
    """Write everything that the strategy `name` needs."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        sys.exit(f"NAME={name}: expected a word in snake_case, as in NAME=second_least")
    rust = ROOT / "rust/core/src/strategy" / f"{name}.rs"
    if rust.exists():
        sys.exit(f"{rust.relative_to(ROOT)}: there is such a strategy already")
    camel = "".join(part.capitalize() for part in name.split("_"))
    cls = f"{camel}Router"
    words = {"name": name, "camel": camel, "title": name.replace("_", " ").capitalize()}
    print("written:")
    rust.write_text(RULE.format(**words), "utf-8")
    print(f"  {rust.relative_to(ROOT)}")
    edit(
        "rust/core/src/strategy/mod.rs",
        (r"^mod \w+;\n", f"mod {name};\n"),
        (r"^registry! \{\n(    \w+::\w+,\n)+", f"    {name}::{camel},\n"),
    )
    edit("python/routecore/routers/load.py", (r"\Z", CLASS.format(**words)))
    edit(
        "python/routecore/routers/__init__.py",
        (r"^from routecore\.routers\.load import \(\n", f"    {cls},\n"),
        (r"^    for router in \(\n(        \w+,\n)+", f"        {cls},\n"),
        (r"^__all__ = \[\n", f'    "{cls}",\n'),
    )
    edit(
        "python/routecore/__init__.py",
        (r"^from routecore\.routers import \(\n", f"    {cls},\n"),
        (r"^__all__ = \[\n", f'    "{cls}",\n'),
    )
    edit("tests/reference.py", (r"^TWINS: dict\[str, Twin\] = \{\n", TWIN.format(**words)))
    edit(
        "docs/choosing.md",
        (r"^## All strategies\n.*?(?:^\|[^\n]*\n)+", f"| `{name}` | `{cls}` | say what | load |\n"),
    )
    edit("docs/strategies.md", (r"^## Good at, bad at\n\n(?:\|[^\n]*\n)+", _about(name)))
    edit("CHANGELOG.md", (r"\A.*?^### Added\n\n", f"- `{cls}`: say what it is for.\n"))
    for command in (
        ["cargo", "fmt", "--all"],
        [sys.executable, "-m", "ruff", "check", "--quiet", "--fix", "--select", "I,RUF022", "."],
        [sys.executable, "-m", "ruff", "format", "--quiet", "."],
    ):
        subprocess.run(command, cwd=ROOT, check=True)
    print(
        f"Next: change the rule in {rust.relative_to(ROOT)} and its twin in tests/reference.py;\n"
        f'fill in what says "say"; `make test-fast`, then\n'
        f"  make develop && .venv/bin/python -m pytest -k {name}"
    )


def _about(name: str) -> str:
    return f"| `{name}` | say what | say what |\n"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("usage: make new-strategy NAME=foo")
    main(sys.argv[1])
