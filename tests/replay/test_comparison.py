"""`compare`: strategies side by side from Python."""

from pathlib import Path

import pytest
from routecore import RouteError
from routecore.replay import Comparison, compare, generate, run

TRACE = generate("documents", requests=200, seed=4)


class First:
    """Everything to the first endpoint."""

    def route_request(self, endpoints, engine_stats, request_stats, request):  # type: ignore[no-untyped-def]
        return endpoints[0].url


def small(**more: object) -> Comparison:
    return compare(TRACE, ["round_robin", "lmetric"], endpoints=2, **more)


def test_it_prints_and_shows_a_ranked_table() -> None:
    found = small()
    assert repr(found) == "<Comparison of 2 strategies, best: lmetric>"
    assert str(found).splitlines()[-1].startswith(("with round_robin", "lmetric is best"))
    assert found._repr_html_().count("<tr>") == 3
    assert [record["strategy"] for record in found.records()] == ["lmetric", "round_robin"]


def test_it_is_the_same_as_single_runs() -> None:
    (_, theirs) = small(seed=7).results
    ours = run(TRACE, strategy="lmetric", endpoints=2, seed=7)
    assert theirs.ttft_ms == ours.ttft_ms


def test_routers_of_ones_own_are_compared() -> None:
    found = compare(TRACE, {"mine": First, "lmetric": "lmetric"}, endpoints=2, speedups=(0.5, 1.0))
    assert found.baseline == "mine"
    assert {(row.strategy, row.speedup) for row in found.rows} == {
        (name, load) for name in ("mine", "lmetric") for load in (0.5, 1.0)
    }


def test_seeds_of_a_workload_are_drawn_anew() -> None:
    found = compare("chat", ["random"], seeds=2, endpoints=2)
    first, second = found.results
    assert first.ttft_ms != second.ttft_ms
    assert first.requests == 4000


def test_it_writes_the_page(tmp_path: Path) -> None:
    path = small().report(tmp_path / "report.html")
    assert path.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_have_the_records(library: str) -> None:
    pytest.importorskip(library)
    frame = getattr(small(), f"to_{library}")()
    assert list(frame["strategy"]) == ["lmetric", "round_robin"]


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(RouteError, match="at least one"):
        compare(TRACE, [])


def test_reprs_are_short() -> None:
    result = small().results[0]
    assert repr(TRACE) == "<Trace documents, 200 requests>"
    assert len(repr(result)) < 80
    assert repr(result.per_request) == "<PerRequest of 200 requests>"
