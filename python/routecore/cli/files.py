"""Files that commands write: whole or not at all."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from routecore.whole_file import replace_file


def check_writable(path: Path) -> None:
    """Find out whether `write_whole` could write there, by making and removing a file beside it.

    Raises:
        OSError: It could not.
    """
    path = path.resolve()
    if _is_special(path):
        return
    if path.is_dir():
        raise IsADirectoryError(21, os.strerror(21))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(13, os.strerror(13))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass


def write_whole(path: Path, text: str) -> None:
    """Replace the file by the text; a pipe or a device is written to.

    Raises:
        OSError: Nothing was changed.
    """
    path = path.resolve()
    if _is_special(path):
        path.write_text(text, encoding="utf-8")
        return
    replace_file(path, text.encode("utf-8"), _mode(path))


def _is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, which cannot be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _mode(path: Path) -> int:
    """The file's mode, or that of a new one."""
    with suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
