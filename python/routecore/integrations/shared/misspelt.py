"""Names of settings that nobody knows, with the known ones that they are most like."""

import difflib
import logging
import re
from collections.abc import Iterable, Mapping

from routecore.errors import RouteError

_log = logging.getLogger("routecore.settings")
_LIKE = 0.75  # of 1; a letter or two
# What Kubernetes tells every pod of a Service whose name begins with ours.
_SERVICE = re.compile(r"(?P<of>.*?)(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_.*)")
_FIELD = re.compile(r"unknown field `(?P<name>[^`]*)`")


def variables(prefix: str, known: Iterable[str], environ: Mapping[str, str]) -> None:
    """Look for variables that begin with the prefix and are not known.

    One that is like a known one is a mistake; any other is named in the log.

    Raises:
        RouteError: A variable is spelt almost as a known one.
    """
    known = sorted(known)
    names = {prefix + name for name in known}
    for name in environ:
        if not name.startswith(prefix) or name in names or _is_service(prefix, name, environ):
            continue
        like = _nearest(name.removeprefix(prefix), known)
        if like is not None:
            raise RouteError(f"{name}: no such variable; did you mean {prefix}{like}?")
        _log.warning(
            "routecore: %s is no setting here, and is ignored; there are %s",
            name,
            ", ".join(sorted(names)),
        )


def field(message: str, known: Iterable[str]) -> str:
    """The message of an unknown key, with the known key that it is most like."""
    found = _FIELD.search(message)
    if found is None:
        return message
    known = sorted(known)
    like = _nearest(found["name"], known)
    return message + (f"; did you mean `{like}`?" if like else f"; valid: {', '.join(known)}")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, known, 1, _LIKE)
    return found[0] if found else None


def _is_service(prefix: str, name: str, environ: Mapping[str, str]) -> bool:
    found = _SERVICE.fullmatch(name.removeprefix(prefix))
    return found is not None and f"{prefix}{found['of']}SERVICE_HOST" in environ
