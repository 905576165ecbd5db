"""Routing for those without a host: endpoints, strategy, load and clock in one object."""

from routecore.fleet.reasons import reason_of
from routecore.fleet.request import FleetRequest
from routecore.fleet.whole import Fleet

__all__ = ["Fleet", "FleetRequest", "reason_of"]
