"""What producers hand out: mappings for whoever reads them, tables for compiled routers."""

from collections.abc import Iterator, Mapping

from routecore import _core
from routecore.endpoints.stats import EngineStats, RequestStats
from routecore.uncopied import Uncopied


class RequestStatsView(Uncopied, _core.ResidentRequestStats, Mapping[str, RequestStats]):
    """URL → `RequestStats` at one time; endpoints without a request so far are absent.

    Making it costs the same however many endpoints and requests there are. Looking up an endpoint
    reads the table as it is then. Iterating, counting or copying (`dict(view)`) takes a snapshot of
    all, which the view is from then on.
    """

    _instead = "take dict(view)"
    _taken: dict[str, RequestStats] | None = None

    def _snapshot(self) -> dict[str, RequestStats]:
        if self._taken is None:
            self._taken = {
                url: _stats(*stats) for url, stats in self.table.all_request_stats(self.now)
            }
        return self._taken

    def __getitem__(self, url: str) -> RequestStats:
        if self._taken is not None:
            return self._taken[url]
        stats = self.table.request_stats(url, self.now) if isinstance(url, str) else None
        if stats is None:
            raise KeyError(url)
        return _stats(*stats)

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot())

    def __len__(self) -> int:
        return len(self._snapshot())


def _stats(
    qps: float,
    ttft: float,
    prefill: int,
    decoding: int,
    finished: int,
    uptime: float,
    latency: float,
    swapped: int,
) -> RequestStats:
    return RequestStats(
        qps=qps,
        ttft=ttft,
        in_prefill_requests=prefill,
        in_decoding_requests=decoding,
        finished_requests=finished,
        uptime=uptime,
        avg_latency=latency,
        num_swapped_requests=swapped,
    )


class EngineStatsView(Uncopied, _core.ResidentEngineStats, Mapping[str, EngineStats]):
    """URL → `EngineStats` of the last scrape; endpoints without fresh stats are absent."""

    _instead = "take dict(view)"
    _stats: Mapping[str, EngineStats]

    def __init__(self, table: _core.Table, stats: Mapping[str, EngineStats]) -> None:
        self._stats = stats

    def __getitem__(self, url: str) -> EngineStats:
        return self._stats[url]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stats)

    def __len__(self) -> int:
        return len(self._stats)
