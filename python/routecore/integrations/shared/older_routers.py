"""Routers of one deployment that live in the same process.

Not in the router's own package: that is handed to other processes by value, module variables and
all, by the very path that the user names. What lives here stays here.
"""

import logging
from typing import Any
from weakref import WeakSet

_log = logging.getLogger("ray.serve.routecore")
_living: dict[str, WeakSet[Any]] = {}


def warn_of_older(name: str, new: Any) -> None:
    """Say that handles made before go on with a router of other settings."""
    known = _living.setdefault(name, WeakSet())
    assert new._fleet is not None
    for old in known:
        if old._fleet is not None and old._fleet.settings != new._fleet.settings:
            _log.warning(
                "routecore %r: an older router of this deployment lives on in this process, with "
                "%s; handles made before keep it. Deploy under another name to change them.",
                name,
                old._fleet.settings.strategy,
            )
    known.add(new)
