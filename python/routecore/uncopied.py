"""What lives in one process: it can be neither copied nor pickled, and says so."""

import copyreg
from typing import Any, ClassVar, NoReturn, SupportsIndex

from routecore import _core


class Uncopied:
    """Has a lock, threads, or state in the compiled core, which no copy could share."""

    __slots__ = ()

    _instead: ClassVar[str] = "make a new one from its settings where it is needed"

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """What `pickle`, `copy.copy` and `copy.deepcopy` ask.

        Raises:
            TypeError: Always.
        """
        _refuse(type(self).__name__, self._instead)


def _refuse(name: str, instead: str) -> NoReturn:
    raise TypeError(
        f"cannot pickle or copy {name}: its locks and its state belong to this process; {instead}"
    )


def _refuse_core(part: object) -> Any:
    _refuse(f"routecore._core.{type(part).__name__}", Uncopied._instead)


for _kind in list(vars(_core).values()):
    if isinstance(_kind, type):
        copyreg.pickle(_kind, _refuse_core)
