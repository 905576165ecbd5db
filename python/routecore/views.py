"""What producers hand out: mappings for whoever reads them, tables for compiled routers."""

from collections.abc import Iterator, Mapping

from routecore import _core
from routecore.stats import EngineStats, RequestStats


class RequestStatsView(_core.ResidentRequestStats, Mapping[str, RequestStats]):
    """URL → `RequestStats` at one time; endpoints without a request so far are absent.

    Making it costs the same however many endpoints and requests there are.
    """

    def __getitem__(self, url: str) -> RequestStats:
        stats = self.table.request_stats(url, self.now) if isinstance(url, str) else None
        if stats is None:
            raise KeyError(url)
        qps, ttft, prefill, decoding, finished, uptime, latency, swapped = stats
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

    def __iter__(self) -> Iterator[str]:
        for url in self.table.urls:
            if url is not None and self.table.request_stats(url, self.now) is not None:
                yield url

    def __len__(self) -> int:
        return sum(1 for _ in self)


class EngineStatsView(_core.ResidentEngineStats, Mapping[str, EngineStats]):
    """URL → `EngineStats` of the last scrape; endpoints without fresh stats are absent."""

    _stats: Mapping[str, EngineStats]

    def __init__(self, table: _core.Table, stats: Mapping[str, EngineStats]) -> None:
        self._stats = stats

    def __getitem__(self, url: str) -> EngineStats:
        return self._stats[url]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stats)

    def __len__(self) -> int:
        return len(self._stats)
