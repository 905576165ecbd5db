"""Bytes that came over a connection and that nobody has taken yet.

ZeroMQ bounds the messages that wait and the size of a part, not the parts of a message: it keeps
those in memory until the last one has come. So the connection itself is looked at.
"""

import socket
import struct
from contextlib import suppress

_BYTES_RECEIVED = 128  # offset in Linux' `struct tcp_info`; behind it a number of eight bytes


def received(fd: int) -> int | None:
    """Bytes that came so far; None where the system does not say, as for `ipc://`."""
    if fd < 0 or not hasattr(socket, "TCP_INFO"):
        return None
    connection = None
    try:
        connection = socket.socket(fileno=fd)
        size = _BYTES_RECEIVED + 8
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:
        return None  # another kind of connection, or closed since
    finally:
        if connection is not None:
            connection.detach()  # it is the library's
    return struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0] if len(info) == size else None


class Wire:
    """The connection of one socket.

    Args:
        most: Bytes that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._fd = -1
        self._taken = 0

    def connected(self, fd: int) -> None:
        """There is a new connection, with this descriptor."""
        self._fd, self._taken = fd, received(fd) or 0

    def gone(self, fd: int) -> None:
        """The connection with this descriptor is closed."""
        if fd == self._fd:
            self._fd = -1

    def took_all(self) -> None:
        """Messages were taken: what waits now came behind the last one, but for a few."""
        self._taken = received(self._fd) or 0

    def took(self, count: int) -> None:
        """So many bytes were taken."""
        self._taken += count

    @property
    def is_over(self) -> bool:
        """Whether more waits than may."""
        return (received(self._fd) or 0) - self._taken > self._most

    def cut(self) -> None:
        """End the connection; the library frees what it has of a message."""
        with suppress(OSError):
            connection = socket.socket(fileno=self._fd)
            try:
                connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()
        self._fd = -1
