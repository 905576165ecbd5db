"""The other routers of a fleet, where the settings say how they are heard."""

import atexit
import threading
import weakref
from importlib.util import find_spec
from shutil import rmtree
from tempfile import mkdtemp
from typing import NamedTuple, TypeVar

from msgspec import structs

from routecore.endpoints.table import EndpointTable, default_table
from routecore.integrations.shared.settings import Settings
from routecore.replicas import Replicas
from routecore.routers import CompiledRouter

S = TypeVar("S", bound=Settings)

_Wanted = tuple[str, str, tuple[int, int, int] | None]
_of_process: dict[_Wanted, Replicas] = {}


def replicas(
    settings: Settings, table: EndpointTable, name: str, router: CompiledRouter
) -> Replicas | None:
    """Those of one deployment or model group, whose load is kept in the table.

    Raises:
        RouteError: The address is none.
    """
    if settings.replicas is None:
        return None
    group = f"{settings.replicas_group}/{name}"
    return Replicas(settings.replicas, table=table, group=group, router=router)


def close_with(owner: object, replicas: Replicas) -> None:
    """Say good-bye once the owner is gone: its threads would speak for it for ever."""
    # In a thread: the owner may be freed on an event loop, and closing waits for the network.
    close = threading.Thread(target=replicas.close, name="routecore-replicas-close", daemon=True)
    weakref.finalize(owner, close.start).atexit = False  # `replicas` closes itself there


def among_workers(settings: S) -> S:
    """The settings with which the worker processes of one machine route as one.

    Call it once, in the process that starts them. Settings that name an address stay as they are.

    Returns:
        Settings with `replicas` set to a folder that the user alone can read.

    Raises:
        ImportError: pyzmq is missing; names the extra.
    """
    if settings.replicas is not None:
        return settings
    if find_spec("zmq") is None:
        raise ImportError("several workers need pyzmq: pip install 'routecore[envoy]'")
    folder = mkdtemp(prefix="routecore-workers-")
    atexit.register(rmtree, folder, ignore_errors=True)
    return structs.replace(settings, replicas=f"zmq+ipc://{folder}")


def replicas_of_process(settings: Settings, router: object = None) -> Replicas | None:
    """Those of the process, whose monitor and routers share one table. Repeatable.

    Args:
        settings: Where they are heard.
        router: Routes by that table: then prefixes are shared, too. Left out: whatever was said of
            it before stands.

    Raises:
        RouteError: The address is none.
        ImportError: The channel needs a package that is missing; names the extra to install.
    """
    where = (settings.replicas or "", settings.replicas_group)
    hashing = getattr(router, "shared_hashing", None)
    wanted = (*where, hashing)
    if router is None:
        wanted = next((known for known in _of_process if known[:2] == where), wanted)
    for known in [known for known in _of_process if known != wanted]:
        _of_process.pop(known).close()
    if settings.replicas is not None and wanted not in _of_process:
        _of_process[wanted] = Replicas(
            settings.replicas,
            table=default_table(),
            group=settings.replicas_group,
            router=None if hashing is None else _Named(hashing),
        )
    return _of_process.get(wanted)


class _Named(NamedTuple):
    shared_hashing: tuple[int, int, int]
