"""Every test starts without singletons, so that none sees another's router or counts."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from singletons import forget_singletons

# Fixtures only clear singletons: one clearing per test function is enough.
_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
# A gate says the same twice, so its examples are drawn from a fixed seed; `explore` draws new ones.
settings.register_profile("default", max_examples=100, derandomize=True, **_SHARED)  # type: ignore[arg-type]
settings.register_profile("fast", max_examples=30, derandomize=True, **_SHARED)  # type: ignore[arg-type]
settings.register_profile("explore", max_examples=2000, derandomize=False, **_SHARED)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def no_singletons() -> Iterator[None]:
    """Clear the singletons before and after each test."""
    forget_singletons()
    yield
    forget_singletons()
