"""An explanation as people read it: ranked, marked, with units."""

import inspect
import pydoc

import msgspec
import pytest
from routecore import (
    ROUTERS,
    EndpointInfo,
    ExpectedLatencyRouter,
    RequestStatsMonitor,
    RouteError,
    new_instance,
)
from routecore.hold import Waits
from routecore.routers.cache_router import IndexSettings
from routecore.routers.explanation import CandidateScore, Explanation, Term

URLS = tuple(f"http://engine-{at}:8000" for at in range(4))
ENDPOINTS = tuple(EndpointInfo(url=url) for url in URLS)


def explained(strategy: str) -> Explanation:
    """After some requests that share a prompt."""
    router = new_instance(ROUTERS[strategy], seed=3)
    monitor = RequestStatsMonitor(60.0)
    body = {"messages": [{"role": "user", "content": "the same words " * 400}]}
    for n in range(6):
        stats = monitor.get_request_stats(100.0 + n)
        url = router.route_request(ENDPOINTS, {}, stats, None, body)
        monitor.on_new_request(url, str(n), 100.0 + n)
        if n % 2:
            monitor.on_request_response(url, str(n), 100.5 + n)
    return router.explain(ENDPOINTS, {}, monitor.get_request_stats(107.0), None, body)


@pytest.mark.parametrize("strategy", ROUTERS)
def test_every_strategy_prints_the_winner_first(strategy: str) -> None:
    found = explained(strategy)
    heading, _, first, *rest = str(found).splitlines()
    assert heading.startswith(f"{strategy} -> {found.url}")
    assert first.startswith(f"* {found.url}")
    assert len(rest) == 3
    assert not any(line.startswith("*") for line in rest)
    assert found.ranked()[0] is found.winner


def test_the_end_of_the_scores_that_wins_is_said() -> None:
    found = explained("expected_latency")
    assert found.lower_is_better is True
    assert "(ms; lowest score wins)" in str(found)
    scores = [candidate.score for candidate in found.ranked()]
    assert scores == sorted(scores)
    assert explained("llm_d").lower_is_better is False
    assert explained("round_robin").lower_is_better is None


def made(*scores: float, out: int | None = None, won: int = 0) -> Explanation:
    return Explanation(
        strategy="foo",
        url=URLS[won],
        candidates=tuple(
            CandidateScore(
                url=URLS[at],
                eligible=at != out,
                score=score,
                terms=() if at == out else (Term("load", score, "requests"),),
            )
            for at, score in enumerate(scores)
        ),
    )


def test_what_could_not_be_chosen_is_marked_and_last() -> None:
    found = made(float("nan"), 5.0, 2.0, out=0, won=2)
    lines = str(found).splitlines()
    assert [line[0] for line in lines[2:]] == ["*", " ", "-"]
    assert lines[-1] == f"- {URLS[0]}"


def test_equal_scores_name_no_better_end() -> None:
    assert made(1.0, 1.0).lower_is_better is None
    assert made(2.0, 1.0, 3.0).lower_is_better is None  # a bound decided, not the score


def test_what_the_request_waits_for_is_said() -> None:
    found = made(1.0, 2.0)
    assert "waits" not in str(found)
    waits = Waits(URLS[0], 123_456.4, 600.0, 131_072.0, 1)
    lines = str(msgspec.structs.replace(found, waits=waits)).splitlines()
    assert len(lines) == 5
    assert lines[1] == (
        f"waits for room at {URLS[0]}: 123,456 tokens in use, 600 added, room for 131,072; "
        "1 request waits"
    )
    waits = msgspec.structs.replace(waits, url="<b>", waiting=1_200)
    page = msgspec.structs.replace(found, waits=waits)._repr_html_()
    assert "<br>waits for room at &lt;b&gt;: " in page
    assert "1,200 requests wait</caption>" in page


def test_notebooks_get_an_escaped_table() -> None:
    url = "http://<b>&"
    page = Explanation("foo", url, (CandidateScore(url, True, 1.0, ()),))._repr_html_()
    assert page.startswith("<table>")
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_an_endpoint_may_be_listed_twice() -> None:
    twice = (*ENDPOINTS[:1], *ENDPOINTS[:1])
    assert str(ExpectedLatencyRouter(seed=1).explain(twice, None, None, None)).count(URLS[0]) == 3
    with pytest.raises(RouteError):
        ExpectedLatencyRouter().explain((), None, None, None)


@pytest.mark.parametrize("strategy", ROUTERS)
def test_help_says_what_explain_shows_and_in_what_unit(strategy: str) -> None:
    text = " ".join((inspect.getdoc(ROUTERS[strategy]) or "").split())
    units = {"ms": "millisecond"}
    for term in explained(strategy).winner.terms:
        named = term.name if strategy != "weighted_score" else "in_flight"
        assert f"`{named}`" in text
        assert term.unit == "1" or units.get(term.unit, term.unit) in text
    assert "Args:" in text


@pytest.mark.parametrize("strategy", ROUTERS)
def test_help_and_signature_show_the_parameters(strategy: str) -> None:
    cls = ROUTERS[strategy]
    parameters = inspect.signature(cls).parameters
    assert parameters == {
        name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"
    }
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert f"{cls.__name__}(*, " in pydoc.plain(pydoc.render_doc(cls))
    doc = (inspect.getdoc(cls) or "") + (inspect.getdoc(IndexSettings) or "")
    assert [name for name in parameters if f"{name}: " not in doc] == []
