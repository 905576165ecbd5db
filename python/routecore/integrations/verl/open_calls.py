"""Calls that were acquired and not released yet."""

import itertools

MAX_OPEN = 1 << 18
"""Calls that are kept; above it the oldest is given up. A step of any size has fewer."""


class OpenCalls:
    """Which calls each server works on, under names of our own.

    verl's request id is that of a conversation: it comes again with every turn, and may be on a
    server twice at once. So each call has a name, which the monitor counts it by.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # Names count up, and dicts keep their order: the first of a server is its oldest.
        self._of_server: dict[str, dict[int, str]] = {}
        self._names: dict[tuple[str, str], list[int]] = {}
        self.total: int = 0

    def add_server(self, server: str) -> None:
        """A server that may get calls; one that is known keeps its own."""
        self._of_server.setdefault(server, {})

    def drop_server(self, server: str) -> None:
        """The server is gone, and with it what it worked on."""
        for request in self._of_server.pop(server, {}).values():
            self._names.pop((server, request), None)
            self.total -= 1

    def add(self, server: str, request: str) -> str:
        """A call of the conversation was given to the server; its name."""
        number = next(self._numbers)
        self._of_server[server][number] = request
        self._names.setdefault((server, request), []).append(number)
        self.total += 1
        return str(number)

    def take(self, server: str, request: str | None) -> str | None:
        """The call of the conversation that the server has had longest, which is over.

        Args:
            server: Where it was.
            request: The conversation; None: any, where the caller does not tell.

        Returns:
            Its name, or None for a call that is not known.
        """
        calls = self._of_server.get(server)
        if not calls:
            return None
        if request is None:
            request = next(iter(calls.values()))
        names = self._names.get((server, request))
        if not names:
            return None
        number = names.pop(0)
        if not names:
            del self._names[server, request]
        del calls[number]
        self.total -= 1
        return str(number)

    def oldest(self) -> tuple[str, str] | None:
        """Server and conversation of the call that has been open longest."""
        heads = ((next(iter(calls.items())), at) for at, calls in self._of_server.items() if calls)
        found = min(((number, at, request) for (number, request), at in heads), default=None)
        return None if found is None else (found[1], found[2])

    def counts(self) -> dict[str, int]:
        """Server → calls in flight, in the order in which servers came."""
        return {server: len(calls) for server, calls in self._of_server.items()}
