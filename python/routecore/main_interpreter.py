"""Refuses subinterpreters before anything is loaded: the compiled core is one per process."""

import importlib
import sys

if sys.version_info < (3, 12):  # later ones refuse by themselves
    try:
        _interpreters = importlib.import_module("_xxsubinterpreters")
        _is_main = _interpreters.get_current() == _interpreters.get_main()
    except (ImportError, AttributeError):
        _is_main = True
    if not _is_main:
        raise ImportError(
            "routecore cannot be used in a subinterpreter: import it in the main interpreter"
        )
