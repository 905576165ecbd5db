"""Fresh singletons around every test; more examples in CI."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from routecore import SingletonABCMeta
from routecore.monitor import SingletonMeta

settings.register_profile("ci", max_examples=2000, deadline=None)
settings.register_profile("dev", max_examples=200, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def fresh_singletons() -> Iterator[None]:
    SingletonABCMeta._instances.clear()
    SingletonMeta._instances.clear()
    yield
    SingletonABCMeta._instances.clear()
    SingletonMeta._instances.clear()
