"""The report: it says what was measured, needs nothing from elsewhere, and stays small."""

import hashlib
import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from click.testing import CliRunner
from routecore import HoldLimits, __version__
from routecore.cli import main
from routecore.replay import ReplayResult, generate, run
from routecore.replay.report import page, words
from routecore.replay.report.figures import MOMENTS, Figures
from routecore.replay.report.why import decisions
from routecore.replay.table import compare

CSS = (files("routecore.replay.report") / "page.css").read_text("utf-8")


def replays(
    strategies: tuple[str, ...] = ("round_robin", "prefix_affinity", "random"),
    loads: tuple[float, ...] = (1.0,),
    seeds: int = 5,
    requests: int = 300,
    **settings: Any,
) -> list[ReplayResult]:
    runs = []
    for seed in range(seeds):
        trace = generate("documents", requests=requests, rate=20, seed=seed)
        for load, name in itertools.product(loads, strategies):
            runs.append(run(trace, strategy=name, speedup=load, seed=seed, **settings))
    return runs


def text(parts: list[tuple[str, bool]]) -> str:
    return "".join(part for part, _ in parts).replace("\u00a0", " ")


class Table(HTMLParser):
    """The cells of the table: (strategy, speed-up, figure) → text."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[str, float, str], str] = {}
        self._row: tuple[str, float] | None = None
        self._cell: tuple[str, float, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "tr":
            row = "data-strategy" in found
            self._row = (found["data-strategy"], float(found["data-speedup"])) if row else None
        elif tag == "td" and self._row:
            self._cell = (*self._row, found["data-figure"])
            self.cells[self._cell] = ""
        elif tag == "small":
            self._cell = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[self._cell] += data.strip()


def expected(row: dict[str, Any]) -> dict[str, str]:
    """What the table must show for a row of the JSON's comparison, figure by figure."""
    cells = {f"ttft_ms.{part}": f"{value:.0f}" for part, value in row["ttft_ms"].items()}
    cells |= {f"e2e_ms.{part}": f"{row['e2e_ms'][part]:.0f}" for part in ("mean", "p99")}
    cells |= {name: f"{100 * row[name]:.1f}\u00a0%" for name in ("token_hit_rate", "goodput")}
    cells |= {"max_share": f"{100 * row['max_share']:.1f}\u00a0%", "lost": str(row["lost"])}
    cells["tpot_ms.mean"] = f"{row['tpot_ms']['mean']:.1f}"
    cells["max_over_mean_load"] = f"{row['max_over_mean_load']:.2f}"
    for key in ("ttft_ms.mean", "ttft_ms.p99", "e2e_ms.mean"):
        pair = row["against"].get(key)
        cells[f"against.{key}"] = ""
        if pair:
            change = f"{100 * (pair['ratio'] - 1):+.1f}\u00a0%".replace("-", "−")
            cells[f"against.{key}"] = change + "*" * pair["exceeds_noise"]
    return cells


def test_the_table_shows_the_figures_of_the_json() -> None:
    runs = replays(loads=(1.0, 4.0))
    table = Table()
    table.feed(page(runs))
    rows = [row.as_dict() for row in compare(runs)]
    assert len(table.cells) == 6 * len(expected(rows[0]))
    for row in rows:
        for figure, shown in expected(row).items():
            assert table.cells[row["strategy"], row["speedup"], figure] == shown
    assert any(shown.endswith("*") for shown in table.cells.values())


def test_nothing_is_fetched_from_elsewhere() -> None:
    html = page(replays(seeds=1))
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,"]


def test_its_size_does_not_grow_with_the_requests() -> None:
    small, large = (len(page(replays(seeds=1, requests=n))) for n in (400, 6000))
    assert large < 1.4 * small
    assert large < 120_000


def test_a_fleet_of_hundreds_is_drawn_in_few_rows() -> None:
    (result,) = replays(("round_robin",), seeds=1, endpoints=300)
    _, busy = Figures([result]).load_over_time("round_robin")
    assert busy.shape == (30, MOMENTS)
    assert len(page([result])) < 150_000


def test_load_over_time_is_the_mean_number_in_flight() -> None:
    (result,) = replays(("power_of_two",), seeds=1, endpoints=4)
    span, busy = Figures([result]).load_over_time("power_of_two")
    each = result.per_request
    begin = each.arrival_ms.min()
    assert span == pytest.approx(each.end_ms.max() - begin)
    wide = span / MOMENTS
    for endpoint, moment in ((0, 0), (1, 40), (3, MOMENTS - 1)):
        mine = each.endpoint == endpoint
        low, high = begin + moment * wide, begin + (moment + 1) * wide
        inside = np.clip(each.end_ms[mine], low, high) - np.clip(each.arrival_ms[mine], low, high)
        assert busy[endpoint, moment] == pytest.approx(inside.sum() / wide, abs=1e-6)


def crowd(**settings: Any) -> list[ReplayResult]:
    """More than two endpoints can take at once."""
    trace = generate("documents", requests=200, rate=400)
    names = ("round_robin", "expected_latency")
    small = {"endpoints": 2, "block_size": 64, "kv_blocks": 1_000}
    return [run(trace, strategy=name, **small, **settings) for name in names]


@pytest.mark.parametrize("where", ["router", "endpoints"])
def test_the_queue_over_time_is_the_mean_number_that_wait(
    where: Literal["router", "endpoints"],
) -> None:
    runs = crowd(hold=HoldLimits(max_wait_s=2))
    span, waiting = Figures(runs).queues(where)
    firsts = [one.per_request.arrival_ms.min() for one in runs]
    last = max(
        np.nanmax(times)
        for one in runs
        for times in (one.per_request.end_ms, one.per_request.turned_away_ms)
    )
    assert span == pytest.approx(last - min(firsts))
    wide = span / MOMENTS
    for one in runs:
        each = one.per_request
        assert one.shed == np.isfinite(each.turned_away_ms).sum() > 0
        spent = np.zeros(MOMENTS)
        for at in range(one.requests):
            left = each.dispatch_ms[at]
            if where == "router":
                came, went = each.arrival_ms[at], each.turned_away_ms[at] if left != left else left
            else:
                came, went = left, each.admitted_ms[at]
            edges = min(firsts) + wide * np.arange(MOMENTS + 1)
            inside = np.clip(went, edges[:-1], edges[1:]) - np.clip(came, edges[:-1], edges[1:])
            spent += np.nan_to_num(inside)
        name = one.settings.strategy
        assert waiting[name] == pytest.approx(spent / wide, abs=1e-6)
        assert waiting[name].max() > 1


def test_the_queue_over_time_is_drawn_where_requests_wait() -> None:
    held, free = page(crowd(hold=True)), page(crowd())
    assert [re.findall(r'data-plot="queue-(\w+)"', html) for html in (held, free)] == [
        ["router", "endpoints"],
        ["endpoints"],
    ]
    assert "Requests waiting at the router" in held and "keeps until there is room" in held
    assert "at the router" not in free.split("How this was made")[0]
    for html in (held, free):
        shown = html.split('data-plot="queue-endpoints"')[1].split("</figure>")[0]
        assert "simulated time; requests on a log scale" in shown
        assert re.search(r'class="x"[^>]*>\d[\d.]*\u00a0(ms|s|min)<', shown)
        data = json.loads(html.split('id="data">')[1].split("</script>")[0])
        plot = data["plots"]["queue-endpoints"]
        assert {len(row) for row in plot["y"]} == {MOMENTS} and plot["span"] > 0
        assert max(max(row) for row in plot["y"]) > 1


def test_the_first_sentence_names_the_best_and_its_gain() -> None:
    figures = Figures(replays())
    assert text(words.verdict(figures)).startswith("prefix_affinity serves this traffic best: ")
    best = figures.ranked[0]
    gain = round(100 * (1 - best.against["ttft_ms.mean"].ratio))
    assert f"{gain} % faster than round_robin" in text(words.verdict(figures))
    assert "more than noise (5 seeds" in words.certainty(figures)


def test_a_gain_from_one_seed_is_not_believed() -> None:
    figures = Figures(replays(seeds=1))
    assert words.certainty(figures).startswith("From one seed: too few to tell gain from noise")


def test_a_strategy_that_differs_by_noise_alone_is_called_level() -> None:
    placebo = [
        run(
            generate("documents", requests=300, rate=20, seed=seed),
            strategy="prefix_affinity",
            label="placebo",
            seed=seed + 50,
        )
        for seed in range(5)
    ]
    figures = Figures([*replays(), *placebo])
    second = figures.ranked[1].strategy
    assert {figures.ranked[0].strategy, second} == {"prefix_affinity", "placebo"}
    assert words.certainty(figures).endswith(f"Within noise of it: {second}.")


def test_where_nothing_beats_round_robin_it_says_so() -> None:
    figures = Figures(replays(("round_robin", "random")))
    assert text(words.verdict(figures)).startswith(
        "round_robin serves this traffic best, nothing beats it"
    )


def test_a_sweep_is_judged_at_the_last_load_that_round_robin_carries() -> None:
    figures = Figures(replays(("round_robin", "random"), loads=(0.5, 1, 40), seeds=1))
    assert figures.knees["round_robin"] == figures.load == 1
    assert 'data-plot="load-ttft_ms-mean"' in page(replays(loads=(1, 2), seeds=1))
    assert 'data-plot="load-ttft_ms-mean"' not in page(replays(seeds=1))


def test_who_loses_requests_is_not_the_best() -> None:
    trace = generate("chat", requests=300, rate=20)
    lossy = run(trace, strategy="round_robin", label="lossy", events=["fail@2s:0", "fail@2s:1"])
    whole = run(trace, strategy="round_robin", endpoints=2)
    assert lossy.failed > 0 and lossy.e2e_ms.mean < whole.e2e_ms.mean
    assert Figures([lossy, whole]).ranked[0].strategy == "round_robin"


def test_a_replay_in_which_nothing_is_served_has_a_page_too() -> None:
    runs = replays(("round_robin", "random"), endpoints=1, events=["fail@0s:0"], seeds=1)
    assert {run.served for run in runs} == {0}
    html = page(runs)
    assert not re.search(r"\b(nan|inf)\b", html)
    assert html.count(">–<") > 10


def test_names_are_text_not_markup() -> None:
    trace = generate("chat", requests=50)
    result = run(trace, strategy="random", label="<script>alert(1)</script>")
    html = page([result, run(trace, strategy="round_robin")])
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_their_ground(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block))

    def contrast(a: str, b: str) -> float:
        high, low = sorted((_luminance(colours[a]), _luminance(colours[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("card", "page"):
        # WCAG 2.2: 4.5 for text, 3 for what is drawn.
        assert min(contrast(text, ground) for text in ("ink", "soft", "better", "worse")) >= 4.5
        tones = [f"tone{at}" for at in range(1, 6)]
        drawn = (*tones, "reference", "grey", "noise")
        assert min(contrast(tone, ground) for tone in drawn) >= 3
    shades = [_luminance(colours[f"level{at}"]) for at in range(7)]
    assert shades in (sorted(shades), sorted(shades, reverse=True))


SMALL = ("replay", "--requests", "120", "--endpoints", "3", "--strategy", "random")


def test_the_command_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = CliRunner().invoke(main, [*SMALL, "--report", str(path), "--json", "-"])
    assert result.exit_code == 0, result.output
    table = Table()
    table.feed(path.read_text("utf-8"))
    for row in json.loads(result.stdout)["comparison"]:
        mean = f"{row['ttft_ms']['mean']:.0f}"
        assert table.cells[row["strategy"], 1.0, "ttft_ms.mean"] == mean


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--report", "/nowhere/x"), "--report /nowhere/x: No such file or directory"),
        (("--report", "/"), "--report /: Is a directory"),
        (("--report", "-", "--json", "-"), "--json and --report: only one of them can be -"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    args: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routecore.replay.run", None)
    result = CliRunner().invoke(main, [*SMALL, *args])
    assert (result.exit_code, result.stderr) == (2, f"error: {reason}\n")


def test_without_its_library_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    result = CliRunner().invoke(main, [*SMALL, "--report", "x.html"])
    assert result.exit_code == 2
    assert result.stderr == "error: --report needs jinja2: pip install 'routecore[report]'\n"


def test_a_sweep_says_how_much_load_is_carried() -> None:
    figures = Figures(replays(("round_robin", "prefix_affinity"), loads=(0.5, 1, 40), seeds=1))
    load = {"round_robin": 1.0, "prefix_affinity": figures.knees["prefix_affinity"]}
    assert words.load_of(figures, "round_robin") == "×1"
    html = page(replays(("round_robin", "prefix_affinity"), loads=(0.5, 1, 40), seeds=1))
    best = figures.ranked[0].strategy
    assert f'data-figure="knee">{words.load_of(figures, best)}<' in html
    assert words.carried(figures).startswith("It carries ")
    assert load["round_robin"] == figures.knees["round_robin"]
    calm = Figures(replays(("round_robin", "random"), loads=(0.1, 0.2), seeds=1))
    assert words.carried(calm).startswith("No strategy is stressed up to")
    assert words.load_of(calm, "random").replace("\u00a0", " ") == "> ×0.2"
    assert words.carried(Figures(replays(seeds=1))) == ""


def test_it_says_how_it_was_made(tmp_path: Path) -> None:
    trace = tmp_path / "mine.jsonl"
    row = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
    trace.write_text(json.dumps(row) + "\n")
    path = tmp_path / "report.html"
    args = ["replay", str(trace), "--strategy", "random,round_robin", "--report", str(path)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    html = path.read_text("utf-8")
    assert f"<code>{shlex.join(['routecore', *args])}</code>" in html
    assert hashlib.sha256(trace.read_bytes()).hexdigest()[:16] in html
    assert f"routecore {__version__}, 20" in html
    CliRunner().invoke(main, [*SMALL, "--seeds", "2", "--report", str(path)])
    assert "generated workload documents, drawn with seed 0 to 1" in path.read_text("utf-8")


def test_decisions_are_in_the_page_with_their_scores() -> None:
    trace = generate("documents", requests=400, rate=20)
    runs = [run(trace, strategy=name, decisions=50) for name in ("round_robin", "expected_latency")]
    why = decisions(Figures(runs), "expected_latency")
    assert why is not None
    assert why["lower"] is True
    assert len(why["rows"]) == 50
    names = [name for name, _ in why["terms"]]
    assert "prefill" in names
    each = runs[1].per_request
    for request, _, tokens, cached, endpoint, among, candidates in why["rows"]:
        assert endpoint == each.endpoint[request] == candidates[0][0]
        assert (tokens, cached) == (each.input_tokens[request], each.cached_tokens[request])
        assert (among, len(candidates)) == (8, 6)
        assert candidates[0][1] == min(row[1] for row in candidates)
    blind = decisions(Figures(runs), "round_robin")
    assert blind is not None and blind["lower"] is None
    assert decisions(Figures(replays(seeds=1)), "random") is None
    assert '"why":{"expected_latency"' in page(runs) or '"expected_latency":{"terms"' in page(runs)
