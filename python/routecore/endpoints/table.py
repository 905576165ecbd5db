"""The packed stat table: a row per endpoint, a float64 column per stat, shared by all parts."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from routecore import _core
from routecore.endpoints.saved import Hashes, load, save
from routecore.uncopied import Uncopied

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer


class EndpointTable(Uncopied):
    """Rows of endpoints and columns of stats, kept in Rust.

    A row number stays with its endpoint until it is removed; a later one may then get it.
    Rows that no endpoint list, event or request has used for long are freed by themselves.
    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self.core: _core.Table = _core.Table()

    def __repr__(self) -> str:
        return f"<EndpointTable of {len(self)} endpoints>"

    def add(self, url: str) -> int:
        """Give the endpoint a row, if it has none, and return its number."""
        return self.core.add(url)

    def remove(self, url: str) -> bool:
        """Free the endpoint's row with its stats and load; False if it had none."""
        return self.core.remove(url)

    @property
    def urls(self) -> list[str | None]:
        """The endpoint of each row, None where a row is free."""
        return self.core.urls

    @property
    def rows(self) -> int:
        """Rows, free ones included: the length of a column."""
        return self.core.rows

    def __len__(self) -> int:
        return self.core.live

    def load_columns(
        self, columns: Mapping[str, "Buffer"], *, urls: Sequence[str] | None = None
    ) -> None:
        """Store whole columns, all or none.

        Args:
            columns: Stat name → one-dimensional float64 buffer (numpy, array('d'), memoryview).
            urls: The endpoint of each value; left out: one value per row, in row order.

        Raises:
            RouteError: Unknown stat or endpoint, wrong length or dtype, a value that is NaN,
                infinite or negative. Nothing is stored then.
        """
        self.core.load_columns(dict(columns), None if urls is None else list(urls))

    def column(self, name: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """A copy of a column, one value per row; NaN where not known.

        Raises:
            RouteError: If no stat has the name; lists the valid ones.
        """
        import numpy as np

        return np.array(self.core.column(name), dtype=np.float64)

    def save(self, path: str | Path, router: Hashes | None = None) -> None:
        """Write what was learned to a file, so that a restart is warm: whole, or not at all.

        That is the engines' speed and answer lengths, how many tokens texts have, how long caches
        last, and, for a router over a prefix index, what each endpoint holds. Requests in flight
        and scraped stats are not in it. Takes milliseconds, and may be called at any time.

        Args:
            path: The file; only its owner may read it.
            router: A router that routes by this table, so that its prefix index is kept, too.

        Raises:
            OSError: The file cannot be written; what was there is still there.
        """
        save(path, self.core, None if router is None else router.hashing)

    def load(self, path: str | Path, router: Hashes | None = None) -> bool:
        """Take over what `save` wrote, before the first request.

        The prefix index is taken over where the router hashes as the one that saved it did: give
        both the same `hash_seed` (`Fleet.load` does).

        Args:
            path: The file.
            router: The router that will route by this table.

        Returns:
            Whether there was such a file.

        Raises:
            RouteError: The file is damaged or of another version, or requests are in flight;
                nothing is changed then.
            OSError: The file cannot be read.
        """
        return load(path, self.core, None if router is None else router.hashing)

    def clear_stats(self, url: str) -> None:
        """Forget what the engine said of itself; its requests in flight stay."""
        self.core.clear_stats(url)

    def forget(self, url: str | None = None, *, learned: bool = False) -> None:
        """Forget what an endpoint's engine had in its cache, or all engines had.

        For those who know that it is lost: new weights, a cache that was reset, an engine that
        was restarted. Requests in flight stay, and are not taken for cached when they end.

        Args:
            url: The endpoint; all of them if left out. One that is not known changes nothing.
            learned: Also forget what was learned: its speed, how long its cache lasts, and that it
                failed; of all endpoints, the length of answers and the tokens of a text as well.
                For another engine or another model behind the URL.
        """
        self.core.forget(url, learned)

    def set_eligible(self, url: str, eligible: bool) -> None:
        """Let the endpoint be chosen, or not (unhealthy, asleep, draining).

        Holds for routers that read this table, beside the endpoint's own flags.

        Raises:
            RouteError: If the endpoint has no row.
        """
        self.core.set_eligible(url, eligible)

    def is_out(self, url: str, timestamp: float) -> bool:
        """Whether a host that chooses by itself should pass the endpoint over at this time.

        False while a probe of it is due, for an endpoint without a row, and where health is
        switched off. What the host then reports as sent there counts as the probe.
        """
        return self.core.is_out(url, timestamp)


@cache
def default_table() -> EndpointTable:
    """The table that monitor, scraper and routers share unless they are given one."""
    return EndpointTable()
