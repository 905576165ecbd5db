"""One instance per class."""

import abc
from typing import Any, ClassVar


class SingletonABCMeta(abc.ABCMeta):
    _instances: ClassVar[dict[type, Any]] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls not in cls._instances:
            cls._instances[cls] = super().__call__(*args, **kwargs)
        return cls._instances[cls]
