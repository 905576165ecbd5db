"""Headers by name, as clients send them and proxies rewrite them."""

from typing import Any


def header(headers: Any, name: str) -> Any:
    """A header's value in any case, with `-` or `_`; None where it is missing.

    Args:
        headers: A mapping, or any object whose `get` finds headers.
        name: As it is set.
    """
    if headers is None:
        return None
    try:
        found = headers.get(name)
        if found is None:
            # Hosts' own header types ignore case, but keep what a proxy made of a `-`.
            for other in {name.replace("-", "_"), name.replace("_", "-")} - {name}:
                found = found if found is not None else headers.get(other)
        if found is None and isinstance(headers, dict):
            wanted = _folded(name)
            found = next((v for k, v in headers.items() if _folded(str(k)) == wanted), None)
    except (AttributeError, TypeError):
        return None
    return found


def session_named(name: str, headers: Any, body: Any) -> str | None:
    """The session that a request is of: a header's value, else that of a key of its body.

    Args:
        name: Of both; a body may also have it with `_` for `-`.
        headers: As for `header`.
        body: The parsed body; what is no dict is ignored.

    Returns:
        Its id as text; None where it is missing or empty.
    """
    found = header(headers, name)
    if found in (None, "") and isinstance(body, dict):
        found = body.get(name, body.get(name.replace("-", "_")))
    return None if found in (None, "") else str(found)


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
