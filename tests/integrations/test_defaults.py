"""One table says which strategy a host runs by default, and no page says otherwise."""

import re
from pathlib import Path

import pytest
from routecore import ROUTERS
from routecore.integrations.shared import defaults

DOCS = Path(__file__).parents[2] / "docs"
HOSTS = {
    "production-stack": defaults.PRODUCTION_STACK,
    "ray-serve": defaults.RAY_SERVE,
    "litellm": defaults.LITELLM,
    "envoy": defaults.ENVOY,
    "verl": defaults.VERL,
}


@pytest.mark.parametrize("page", HOSTS)
def test_the_table_and_the_page_name_the_default(page: str) -> None:
    assert HOSTS[page] in ROUTERS
    choosing = (DOCS / "choosing.md").read_text("utf-8")
    table = re.findall(rf"^\|[^|]*\({page}\.md\)[^|]*\| `(\w+)` \|", choosing, re.MULTILINE)
    assert table == [HOSTS[page]]
    own = (DOCS / f"{page}.md").read_text("utf-8")
    said = re.findall(r"^\*\*Strategy by default: `(\w+)`\.\*\*", own, re.MULTILINE)
    assert said == [HOSTS[page]]
