"""Every file and name that ARCHITECTURE.md points to is there."""

import re

from import_graphs import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
PATHS = sorted(set(re.findall(r"`((?:python|rust|tests|docs)/[\w./-]*)`", PAGE)))


def test_every_path_is_there() -> None:
    assert len(PATHS) > 40
    assert [path for path in PATHS if not (ROOT / path).exists()] == []


def test_every_function_is_where_the_page_says() -> None:
    for line in PAGE.splitlines():
        for name, path in re.findall(r"`(?:\w+::)?(\w+)`(?:,| in) `([\w./]+\.(?:rs|py))`", line):
            text = (ROOT / path).read_text("utf-8")
            assert re.search(rf"\b(?:fn|def) {name}\b", text), f"{name} is not in {path}"


def test_a_newcomer_reads_less_than_a_thousand_lines() -> None:
    reading = PAGE[PAGE.index("A newcomer reads") :]
    paths = ["ARCHITECTURE.md", *re.findall(r"`([\w./]+\.(?:rs|py))`", reading)]
    assert len(paths) == 7
    assert sum(len((ROOT / p).read_text("utf-8").splitlines()) for p in paths) < 1000
