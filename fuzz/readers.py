"""Fuzzing by coverage of what Python reads: `python fuzz/readers.py [libFuzzer options] [corpus]`.

Trace files of all formats, `/metrics`, settings and request bodies, whatever their bytes, give a
result or one of the errors that they promise. Needs `pip install atheris` and routecore.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["routecore"]):
    from routecore.endpoints.metrics import read_metrics
    from routecore.errors import RouteError
    from routecore.integrations.shared.settings import Settings, parameters
    from routecore.replay import FORMATS, read_trace
    from routecore.requests.body import body_of

FOLDER = Path(tempfile.mkdtemp(prefix="routecore-fuzz-"))


class Request:
    """A host's request with a cached body."""

    def __init__(self, body: bytes) -> None:
        self._body = body


def trace(data: bytes, kind: int) -> None:
    """A trace file of a format, or of the one that is guessed."""
    formats = [None, *FORMATS]
    path = FOLDER / ("trace.gz" if kind & 128 else "trace")
    path.write_bytes(data)
    read_trace(path, formats[kind % len(formats)], skip_bad=bool(kind & 64))


def settings(data: bytes, kind: int) -> None:
    """A settings file, or parameters in a variable."""
    if kind & 1:
        parameters(data.decode(errors="surrogateescape"), "ROUTECORE_PARAMS")
        return
    path = FOLDER / ("settings.toml" if kind & 2 else "settings.yaml")
    path.write_bytes(data)
    Settings.read({"ROUTECORE_CONFIG": str(path)})


def one(data: bytes) -> None:
    """One input: two bytes that say what it is, and the rest."""
    which, kind, rest = (data + b"\0\0")[0], (data + b"\0\0")[1], data[2:]
    try:
        if which % 4 == 0:
            trace(rest, kind)
        elif which % 4 == 1:
            read_metrics(rest.decode(errors="replace"))
        elif which % 4 == 2:
            settings(rest, kind)
        else:
            body_of(Request(rest), None)
    except RouteError:
        pass
    except ValueError:
        if which % 4 != 1:  # an error page is no idle engine: promised
            raise


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
