"""A model group of LiteLLM: its fleet, and the deployments that it last had."""

import time
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

from routecore.endpoints.stats import EndpointInfo
from routecore.integrations.litellm.request import id_of, ids_of, narrowing
from routecore.integrations.shared.fleet import Fleet

_REREAD = 1.0  # seconds for which deployments known by their ids are believed to be as they were
_MAX_BEHIND = 4096

Deployment = Mapping[str, Any]


class Group:
    """A model group.

    Attributes:
        fleet: Its strategy and load.
        ids: LiteLLM's ids of the deployments, in order.
        endpoints: The same as the router knows them.
        narrows: Whether LiteLLM may drop some of them after our choice.
        addresses: Id → where its engine is.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.ids: tuple[str, ...] = ()
        self.endpoints: tuple[EndpointInfo, ...] = ()
        self.narrows: bool = False
        self.addresses: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._last: list[Any] = []
        self._until = float("-inf")
        self._look = 0
        self._behind: dict[str, tuple[str, str]] = {}

    def is_current(self, deployments: list[Any]) -> bool:
        """Whether these are the deployments that were read last, as far as a look at some tells.

        LiteLLM up to 1.108 hands the same dicts out until one changes; since then it makes them
        anew for each request. Of those both ends and one more, in turn, are compared by their ids,
        and all are read again after a second. `named` finds out what this has overlooked.
        """
        last, count = self._last, len(deployments)
        if len(last) != count:
            return False
        if last[0] is deployments[0] and all(map(is_, last, deployments)):
            return True
        if time.monotonic() >= self._until:
            return False
        self._look = look = (self._look + 1) % count
        ids = self.ids
        return (
            id_of(deployments[0]) == ids[0]
            and id_of(deployments[-1]) == ids[-1]
            and id_of(deployments[look]) == ids[look]
        )

    def read(self, deployments: list[Any]) -> tuple[str, ...]:
        """Read them; gives their ids."""
        ids = ids_of(deployments)
        if ids != self.ids:
            self.ids, self.endpoints = ids, self.fleet.endpoints(ids)
            self._places = {name: at for at, name in enumerate(ids)}
        self._last, self._until = list(deployments), time.monotonic() + _REREAD
        self.narrows = narrowing(deployments)
        engines = {}
        for name, deployment in zip(ids, deployments, strict=True):
            params = deployment["litellm_params"]
            engines[name] = str(params.get("api_base") or ""), str(params.get("model"))
        self.addresses = {name: address for name, (address, _) in engines.items()}
        self._forget_others(engines)
        return ids

    def named(self, name: str, deployments: Sequence[Deployment]) -> Deployment | None:
        """The deployment of that id where it was when they were read; None if another is there."""
        at = self._places.get(name, len(deployments))
        if at >= len(deployments) or id_of(deployments[at]) != name:
            return None
        return deployments[at]

    def _forget_others(self, now: dict[str, tuple[str, str]]) -> None:
        """Forget what was learned of deployments behind whose id is another engine or model."""
        before = self._behind
        for name, engine in now.items():
            if before.get(name, engine) != engine:
                self.fleet.forget(name, learned=True)
        before |= now
        if len(before) > _MAX_BEHIND:
            self._behind = now
