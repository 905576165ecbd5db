"""The keys of verl's router file."""

import math
from collections.abc import Mapping
from typing import Any, Self

from routecore.errors import RouteError
from routecore.integrations.shared import defaults, settings

# What shadow mode needs is a host that chooses beside us; verl's router is replaced by ours.
_NOT_HERE = frozenset({"mode", "shadow_file", "shadow_max_bytes", "tokenizer"})
_VERLS = frozenset({"router_class"})


class Settings(settings.Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of this integration.

    Attributes:
        lease_timeout: Seconds after which a call that is never released leaves the load.
        forget_after_idle: Seconds without a call in flight after which new weights are taken to
            have come, so that no prompt is in any cache; 0 for never.
    """

    strategy: str = defaults.VERL
    # verl releases every call in a `finally`; the lease is for workers that died.
    lease_timeout: float = 86_400.0
    forget_after_idle: float = 5.0

    @classmethod
    def of_file(cls, given: Mapping[str, Any]) -> Self:
        """The settings of a router file: its own keys, and the strategy's parameters beside them.

        Raises:
            RouteError: Naming the key, what was expected and what came.
        """
        kept = {name: value for name, value in given.items() if name not in _VERLS}
        for name in sorted(_NOT_HERE & kept.keys()):
            raise RouteError(f"verl's router file: {name} has no effect here; leave it out")
        fields = {name: kept.pop(name) for name in cls.__struct_fields__ if name in kept}
        params = fields.get("params") or {}
        if not isinstance(params, Mapping):
            raise RouteError(f"verl's router file: params: expected a mapping, got {params!r}")
        fields["params"] = {**params, **kept}
        made = cls.of(fields)
        for name in ("lease_timeout", "forget_after_idle"):
            value = getattr(made, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lease_timeout" and not value):
                raise RouteError(f"verl's router file: {name}: expected seconds, got {value}")
        made.checked()
        return made
