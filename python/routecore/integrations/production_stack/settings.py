"""What the user of this host chose: `integrations.shared.settings`, and what only this host has."""

import os
from collections.abc import Mapping
from typing import ClassVar

from routecore.endpoints.ranks import MAX_RANKS
from routecore.errors import RouteError
from routecore.integrations.shared import settings
from routecore.interface import RoutingInterface
from routecore.routers import ROUTERS
from routecore.routers.prefill_decode import PrefillDecodeRouter

EQUAL = "equal"


class Settings(settings.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of this integration.

    Attributes:
        strategy: A word of `routecore strategies`; "equal": our equal of the host's routing logic.
        cache_discovery: Keep the endpoint objects of a static discovery between requests.
        data_parallel_ranks: Of each engine; with several, each is an endpoint to the strategy.
    """

    known: ClassVar[Mapping[str, type[RoutingInterface]]] = {
        **ROUTERS,
        PrefillDecodeRouter.strategy: PrefillDecodeRouter,
    }

    strategy: str = EQUAL
    cache_discovery: bool = True
    data_parallel_ranks: int = 1


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a process.

    Raises:
        RouteError: A file or value is wrong; the text names it.
    """
    found = Settings.of(Settings.read(environ))
    if found.strategy != EQUAL:
        found.checked()
    elif found.params:
        raise RouteError(f"params {sorted(found.params)}: need a strategy to belong to")
    if not 1 <= found.data_parallel_ranks <= MAX_RANKS:
        raise RouteError(
            f"data_parallel_ranks: expected from 1 to {MAX_RANKS}, got {found.data_parallel_ranks}"
        )
    found.limits()
    return found


class StartError(RouteError, SystemExit):
    """A wrong setting. Where nobody catches it, at the host's start, its line is all that is said.

    At a dynamic reload the host catches it as any other exception, logs it, and goes on as before.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code: str | int | None = f"routecore: {text}"
