"""The report in a real browser: light and dark, wide and narrow."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from replay.browser import CHROMIUM, Page, browser
from replay.test_report import expected
from routecore.cli import main

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium"),
]

VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
# Every cell, as it is laid out: hidden text would be left out.
CELLS = """[...document.querySelectorAll("tr[data-strategy] td")].map((cell) => {
  const note = cell.querySelector("small");
  return [cell.parentNode.dataset.strategy, +cell.parentNode.dataset.speedup, cell.dataset.figure,
          cell.innerText.slice(0, note ? -note.innerText.length : undefined).trim()];
})"""
OUTSIDE = """[...document.querySelectorAll("main *")].filter((part) => {
  const box = part.getBoundingClientRect();
  const clipped = part.closest(".scroll, .chips, svg, .name");
  return !clipped && box.width > 0 && (box.left < -0.5 || box.right > innerWidth + 0.5);
}).map((part) => part.outerHTML.slice(0, 80))"""
TEXT_OVER_TEXT = """[...document.querySelectorAll(".plane")].flatMap((plane) => {
  const boxes = [...plane.querySelectorAll("span")].map((s) => s.getBoundingClientRect());
  return boxes.filter((a, i) => boxes.some((b, j) => i < j &&
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
}).length"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The report of a sweep over every strategy, and its JSON."""
    folder = tmp_path_factory.mktemp("report")
    html, figures = folder / "report.html", folder / "figures.json"
    args = ["documents", "--requests", "300", "--rate", "20", "--speedup", "1,2,6", "--seeds", "5"]
    result = CliRunner().invoke(
        main, ["replay", *args, "--report", str(html), "--json", str(figures)]
    )
    assert result.exit_code == 0, result.output
    return html, figures


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_fits_is_quiet_and_shows_the_figures_of_the_json(
    tab: Page, files: tuple[Path, Path], tmp_path: Path, width: int, scheme: str
) -> None:
    html, figures = files
    tab.open(html, width=width, scheme=scheme)

    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(TEXT_OVER_TEXT) == 0

    cells = {(name, load, figure): text for name, load, figure, text in tab.evaluate(CELLS)}
    rows = json.loads(figures.read_text())["comparison"]
    assert len(cells) == len(rows) * len(expected(rows[0]))
    for row in rows:
        for figure, shown in expected(row).items():
            found = cells[row["strategy"], row["speedup"], figure].replace("\u00a0", " ")
            assert found == shown.replace("\u00a0", " ")

    # A picture of a page without colours would compress to next to nothing.
    shot = tmp_path / f"{scheme}-{width}.png"
    tab.screenshot(shot)
    assert shot.stat().st_size > 50_000
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) > 384) == (scheme == "light")

    asked = [said for method, said in tab.events if method == "Network.requestWillBeSent"]
    assert [each["request"]["url"] for each in asked] == [html.as_uri()]
    noisy = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [said for method, said in tab.events if method in noisy] == []


def test_a_place_in_a_plot_is_read_out(tab: Page, files: tuple[Path, Path]) -> None:
    tab.open(files[0], width=1280, scheme="light")
    tab.evaluate("document.querySelector('[data-plot=load-e2e_ms-mean]').scrollIntoView()")
    place = """(() => {
      const plane = document.querySelector("[data-plot=load-e2e_ms-mean] .plane");
      const box = plane.getBoundingClientRect();
      return [box.right - 2, box.top + 40];
    })()"""
    x, y = tab.evaluate(place)
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert tab.evaluate("document.querySelector('#tip p').innerText") == "speed-up ×6"
    said = tab.evaluate("[...document.querySelectorAll('#tip span')].map((s) => s.innerText)")
    rows = json.loads(files[1].read_text())["comparison"]
    last = {row["strategy"]: row["e2e_ms"]["mean"] for row in rows if row["speedup"] == 6}
    names = said[::2]
    assert sorted(names) == sorted(last)
    assert [last[name] for name in names] == sorted(last.values())
    shown = said[1].split()
    assert float(shown[0]) * (1000 if shown[1] == "s" else 1) == pytest.approx(
        min(last.values()), rel=0.01
    )


def test_the_queue_at_a_moment_is_read_out(tab: Page, files: tuple[Path, Path]) -> None:
    tab.open(files[0], width=1280, scheme="light")
    shown = "document.querySelector('[data-plot=queue-endpoints]')"
    tab.evaluate(f"{shown}.scrollIntoView({{block: 'center'}})")
    x, y = tab.evaluate(
        f"(() => {{ const box = {shown}.querySelector('.plane').getBoundingClientRect();"
        " return [box.left + 2, box.top + 40]; })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert tab.evaluate("document.querySelector('#tip p').innerText").startswith("after ")
    said = tab.evaluate("[...document.querySelectorAll('#tip span')].map((s) => s.innerText)")
    numbers = [float(text.replace(",", "")) for text in said[1::2]]
    assert numbers == sorted(numbers) and len(numbers) == len(set(said[::2])) > 5


def test_a_chosen_strategy_is_followed_until_it_is_let_go(
    tab: Page, files: tuple[Path, Path]
) -> None:
    tab.open(files[0], width=1280, scheme="dark")
    press = "document.querySelector('.chips button:nth-child(3)').click()"
    shown = """[document.querySelectorAll(".line.on").length,
                document.querySelector(".chips [aria-pressed=true]")?.innerText ?? null]"""
    name = tab.evaluate("document.querySelector('.chips button:nth-child(3)').innerText")
    tab.evaluate(press)
    assert tab.evaluate(shown) == [6, name]
    tab.evaluate(press)
    assert tab.evaluate(shown) == [0, None]


def press(tab: Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        code = {"Enter": 13, "ArrowRight": 39, "ArrowLeft": 37}[key]
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)


def test_the_keyboard_moves_along_a_plot(tab: Page, files: tuple[Path, Path]) -> None:
    tab.open(files[0], width=1280, scheme="light")
    tab.evaluate("document.querySelector('[data-plot=load-e2e_ms-mean] .plane').focus()")
    press(tab, "ArrowRight")
    assert tab.evaluate("document.querySelector('#tip p').innerText") == "speed-up ×2"
    said = tab.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    assert said.startswith("speed-up ×2: ")
    assert "round_robin" in said


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_place_in_a_picture_of_load_says_why(
    tab: Page, files: tuple[Path, Path], width: int, scheme: str
) -> None:
    tab.open(files[0], width=width, scheme=scheme)
    tab.evaluate("document.querySelector('[data-why=expected_latency]').click()")
    panel = "document.getElementById('why')"
    chosen = tab.evaluate(f"{panel}.querySelector('p').innerText")
    assert "expected_latency chose endpoint " in chosen
    assert "the lowest score wins" in chosen
    rows = tab.evaluate(f"[...{panel}.querySelectorAll('tbody tr')].map((r) => r.innerText)")
    assert rows[0].startswith("→ ")
    assert len(rows) == 6
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(OUTSIDE.replace(".scroll,", ".scroll, .wide,")) == []

    title = f"{panel}.querySelector('h3').innerText"
    before = tab.evaluate(title)
    tab.evaluate("document.querySelector('[data-why=expected_latency]').focus()")
    press(tab, "ArrowRight")
    after = tab.evaluate(title)
    assert after != before
    press(tab, "ArrowLeft")
    assert tab.evaluate(title) == before


def test_the_table_sorts_and_is_a_file(tab: Page, files: tuple[Path, Path]) -> None:
    tab.open(files[0], width=1280, scheme="light")
    names = """[...document.querySelectorAll("tbody:first-of-type tr[data-strategy]")]
               .map((row) => row.dataset.strategy)"""
    rows = [row for row in json.loads(files[1].read_text())["comparison"] if row["speedup"] == 1]
    tab.evaluate("document.querySelector('thead th:nth-child(2) button').click()")
    hits = {row["strategy"]: round(row["token_hit_rate"], 3) for row in rows}
    rising = [hits[name] for name in tab.evaluate(names)]
    assert rising == sorted(hits.values())
    tab.evaluate("document.querySelector('thead th:nth-child(2) button').click()")
    assert [hits[name] for name in tab.evaluate(names)] == rising[::-1]
    assert tab.evaluate("document.querySelector('[aria-sort=descending]').innerText") == "hit"
    lines = tab.evaluate("csv()").splitlines()
    assert lines[0].startswith("strategy,speedup,token_hit_rate,ttft_ms.mean,")
    assert len(lines) == 1 + 3 * len(rows)
    assert len({line.count(",") for line in lines}) == 1


def test_all_that_can_be_used_can_be_reached_by_keyboard_and_has_a_name(
    tab: Page, files: tuple[Path, Path]
) -> None:
    tab.open(files[0], width=1280, scheme="light")
    unnamed = """[...document.querySelectorAll("button, [tabindex], summary, [role=button]")]
      .filter((part) => part.tabIndex < 0 ||
        !(part.getAttribute("aria-label") || part.innerText.trim()))
      .map((part) => part.outerHTML.slice(0, 80))"""
    assert tab.evaluate(unnamed) == []
    assert tab.evaluate("document.querySelectorAll('thead th:not([scope=col])').length") == 0
    assert tab.evaluate("document.querySelectorAll('caption, html[lang], head title').length") == 3
