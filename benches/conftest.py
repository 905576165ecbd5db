"""The singletons are cleared around each bench, as around each test."""

from collections.abc import Iterator

import pytest
from routecore import SingletonABCMeta
from routecore.endpoints.monitor import SingletonMeta
from routecore.endpoints.table import default_table


@pytest.fixture(autouse=True)
def no_singletons() -> Iterator[None]:
    """Drop routers, producers and the shared table."""
    SingletonABCMeta._instances.clear()
    SingletonMeta._instances.clear()
    default_table.cache_clear()
    yield
