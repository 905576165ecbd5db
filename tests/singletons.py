"""The objects of which a process has one each."""

from routecore import SingletonABCMeta
from routecore.endpoints.monitor import SingletonMeta
from routecore.endpoints.table import default_table


def forget_singletons() -> None:
    """Drop every router, monitor and scraper, and the table they share."""
    for instances in (SingletonABCMeta._instances, SingletonMeta._instances):
        for instance in list(instances.values()):
            close = getattr(instance, "close", None)
            if callable(close):
                close()
        instances.clear()
    default_table.cache_clear()
