"""The other routers of a fleet, where the settings say how they are heard."""

from routecore.endpoints.table import EndpointTable, default_table
from routecore.integrations.shared.settings import Settings
from routecore.replicas import Replicas

_of_process: dict[tuple[str, str], Replicas] = {}


def replicas(settings: Settings, table: EndpointTable, name: str) -> Replicas | None:
    """Those of one deployment or model group, whose load is kept in the table.

    Raises:
        RouteError: The address is none.
    """
    if settings.replicas is None:
        return None
    group = f"{settings.replicas_group}/{name}"
    return Replicas(settings.replicas, table=table, group=group)


def replicas_of_process(settings: Settings) -> Replicas | None:
    """Those of the process, whose monitor and routers share one table. Repeatable.

    Raises:
        RouteError: The address is none.
    """
    wanted = (settings.replicas or "", settings.replicas_group)
    for known in [known for known in _of_process if known != wanted]:
        _of_process.pop(known).close()
    if settings.replicas is not None and wanted not in _of_process:
        _of_process[wanted] = Replicas(
            settings.replicas, table=default_table(), group=settings.replicas_group
        )
    return _of_process.get(wanted)
