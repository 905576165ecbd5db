"""Every place that must know a strategy does, and says so by itself where one is missing."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import reference
import reference_cost
import routecore
from routecore import ROUTERS, _core, routers
from routecore.routers.compiled import CompiledRouter

ROOT = Path(__file__).parent.parent
RUST = ROOT / "rust/core/src/strategy"

BY_HAND = {
    "round_robin": "test_round_robin_keeps_a_turn_per_set",
    "weighted_score": "test_weighted_score_takes_one_of_the_best",
    "session_affinity": "test_a_session_goes_home_or_to_the_next_within_the_bound",
    "prefix_affinity": "test_prompts_go_where_depth_rule_hash_chain_and_bound_say",
}
"""Strategies whose twins have state or a key, and the tests of `test_agreement.py` for them."""


def missing(name: str, cls: type[Any]) -> list[str]:
    """What to do where for a strategy to be whole; a line each."""
    todo = []
    source = RUST / f"{name}.rs"
    if not source.exists():
        todo.append(f"write {source.relative_to(ROOT)}")
    if name not in _core.STRATEGIES:
        todo.append(f"add a row for {name} to registry! in rust/core/src/strategy/mod.rs")
    if ROUTERS.get(name) is not cls:
        todo.append(f"add {cls.__name__} to ROUTERS in python/routecore/routers/__init__.py")
    for module in (routers, routecore):
        if cls.__name__ not in module.__all__:
            todo.append(f"import {cls.__name__} in {module.__name__} and name it in __all__")
    for parameter in list(inspect.signature(cls.__init__).parameters)[1:]:
        if parameter not in routers.UNITS:
            todo.append(f"add the unit of {parameter} to UNITS in routers/__init__.py")
    if not cls.__doc__:
        todo.append(f"give {cls.__name__} a docstring")
    if name not in {**reference.TWINS, **reference_cost.COSTS, **BY_HAND}:
        todo.append(
            f"add a twin of {name} to TWINS in tests/reference.py (or, where it reads the prompt, "
            "to COSTS in tests/reference_cost.py)"
        )
    for page in ("docs/choosing.md", "docs/strategies.md"):
        if not re.search(rf"^\| `{name}` \|", (ROOT / page).read_text("utf-8"), re.MULTILINE):
            todo.append(f"add a row for {name} to the table in {page}")
    return todo


@pytest.mark.parametrize("name", sorted({*ROUTERS, *_core.STRATEGIES}))
def test_a_strategy_is_known_wherever_it_must_be(name: str) -> None:
    assert missing(name, ROUTERS.get(name, CompiledRouter)) == []


def test_a_new_strategy_is_shown_all_its_places() -> None:
    class Second(CompiledRouter):
        strategy = "second"

        def __init__(self, *, depth: int = 2, seed: int | None = None) -> None:
            self._build(seed, depth=depth)

    Second.__doc__ = None
    todo = "\n".join(missing("second", Second))
    for place in (
        "write rust/core/src/strategy/second.rs",
        "registry!",
        "ROUTERS",
        "routecore.routers and name it in __all__",
        "routecore and name it in __all__",
        "unit of depth",
        "docstring",
        "TWINS in tests/reference.py",
        "docs/choosing.md",
        "docs/strategies.md",
    ):
        assert place in todo


@pytest.mark.parametrize("test", list(BY_HAND.values()))
def test_twins_compared_by_hand_are_compared(test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests/test_agreement.py").read_text("utf-8")
