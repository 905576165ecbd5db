"""The one error of the package, and how it names what was probably meant."""

from collections.abc import Iterable


class RouteError(ValueError):
    """No endpoint can be chosen, or a parameter or column is wrong; the text names which."""


def unknown(word: object, known: Iterable[str]) -> str:
    """What an error says of a word that is not known: the word, the nearest known one, and all.

    Args:
        word: As it was written.
        known: The words that would have been right, in the order in which to list them.
    """
    import difflib  # only errors need it

    valid = list(known)
    plain = str(word).strip().lower().replace("-", "_")
    same = {name.lower().replace("-", "_"): name for name in valid}
    near = [same[name] for name in difflib.get_close_matches(plain, same, n=1, cutoff=0.6)]
    near = near or [name for low, name in same.items() if len(plain) > 2 and plain in low][:3]
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{word!r}{meant} valid: {', '.join(valid) or 'none'}"
