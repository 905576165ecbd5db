"""Scrapes the `/metrics` of all engines at once and keeps what is fresh."""

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from routecore.errors import RouteError
from routecore.interface import Endpoint
from routecore.monitor import SingletonMeta
from routecore.stats import EngineStats
from routecore.table import EndpointTable, default_table
from routecore.views import EngineStatsView

if TYPE_CHECKING:
    import httpx

Endpoints = Iterable[str | Endpoint]

_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "queuing",
    "vllm:gpu_cache_usage_perc": "usage",
    "vllm:kv_cache_usage_perc": "usage",
    "vllm:gpu_prefix_cache_hits": "hits",
    "vllm:prefix_cache_hits": "hits",
    "vllm:gpu_prefix_cache_queries": "queries",
    "vllm:prefix_cache_queries": "queries",
    "vllm:gpu_prefix_cache_hit_rate": "hit_rate",
}
_COLUMNS = (
    "num_running_requests",
    "num_queuing_requests",
    "gpu_cache_usage_perc",
    "gpu_prefix_cache_hit_rate",
    "active_connections",
)


def parse_metrics(text: str) -> EngineStats:
    """vLLM's Prometheus text as stats, under the names of old and new versions.

    Counts are summed over models and data-parallel ranks; shares are averaged. The hit rate is
    hits / queries where the counters exist. NaN, negative and infinite samples are passed over.

    Raises:
        ValueError: If the text is not in the Prometheus format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            kind = _NAMES.get(sample.name.removesuffix("_total"))
            if kind is not None and 0 <= sample.value < float("inf"):
                samples.setdefault(kind, []).append(sample.value)

    def total(kind: str) -> int:
        return round(sum(samples.get(kind, ())))

    def mean(kind: str) -> float:
        values = samples.get(kind, ())
        return min(1.0, sum(values) / len(values)) if values else 0.0

    hits, queries = total("hits"), total("queries")
    return EngineStats(
        num_running_requests=total("running"),
        num_queuing_requests=total("queuing"),
        gpu_prefix_cache_hit_rate=min(1.0, hits / queries) if queries else mean("hit_rate"),
        gpu_prefix_cache_hits_total=hits,
        gpu_prefix_cache_queries_total=queries,
        gpu_cache_usage_perc=mean("usage"),
    )


class EngineStatsScraper(metaclass=SingletonMeta):
    """Keeps the engines' own figures, in the table and as a mapping.

    Args:
        endpoints: URLs or endpoints, or a function that returns those of the moment.
        scrape_interval: Seconds between scrapes.
        timeout: Seconds after which an endpoint's answer is given up.
        stale_after: Seconds after which an endpoint that stopped answering has no stats; three
            intervals if left out.
        table: Where to store; the shared table if left out.

    Raises:
        RouteError: If a duration is not above 0.
    """

    def __init__(
        self,
        endpoints: Endpoints | Callable[[], Endpoints],
        scrape_interval: float = 1.0,
        *,
        timeout: float = 1.0,
        stale_after: float | None = None,
        table: EndpointTable | None = None,
    ) -> None:
        stale_after = 3 * scrape_interval if stale_after is None else stale_after
        for name, value in (
            ("scrape_interval", scrape_interval),
            ("timeout", timeout),
            ("stale_after", stale_after),
        ):
            if not value > 0:
                raise RouteError(f"{name}: expected seconds above 0, got {value}")
        if not callable(endpoints):
            fixed = list(endpoints)
            endpoints = lambda: fixed  # noqa: E731
        self._endpoints = endpoints
        self._interval, self._timeout, self._stale_after = scrape_interval, timeout, stale_after
        self.table = default_table() if table is None else table
        self._fresh: dict[str, EngineStats] = {}
        self._seen: dict[str, float] = {}
        self._failures = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def failures(self) -> int:
        """Scrapes that gave no stats: refused, timed out, not 200, or not Prometheus text."""
        return self._failures

    def start(self) -> None:
        """Scrape in a background thread until `close()`; a second call changes nothing."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(
                    target=self._run, name="routecore-scraper", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Stop the background thread; `start()` may be called again."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._timeout + self._interval + 1.0)

    def get_health(self) -> bool:
        """Whether the background thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def get_engine_stats(self) -> EngineStatsView:
        """Fresh stats of all endpoints, as a mapping that costs O(1) to make."""
        return EngineStatsView(self.table.core, self._fresh)

    def scrape_once(self) -> None:
        """Scrape all endpoints now, concurrently, and let go of stats that are too old."""
        urls = list(dict.fromkeys(e if isinstance(e, str) else e.url for e in self._endpoints()))
        results = asyncio.run(self._scrape(urls)) if urls else []
        now = time.monotonic()
        with self._lock:
            fresh = {url: stats for url, stats in zip(urls, results, strict=True) if stats}
            self._failures += len(urls) - len(fresh)
            self._seen.update(dict.fromkeys(fresh, now))
            known = {**self._fresh, **fresh}
            old = [
                url
                for url in known
                if url not in urls or now - self._seen.get(url, 0.0) > self._stale_after
            ]
            for url in old:
                del known[url]
                self._seen.pop(url, None)
                self.table.clear_stats(url)
            self._store(fresh)
            self._fresh = known

    def _store(self, fresh: dict[str, EngineStats]) -> None:
        for url in fresh:
            self.table.add(url)
        columns = {
            name: array("d", [float(getattr(stats, name)) for stats in fresh.values()])
            for name in _COLUMNS
        }
        if fresh:
            self.table.load_columns(columns, urls=list(fresh))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.scrape_once()
            except Exception:  # an endpoints() that fails must not end scraping
                self._failures += 1
            self._stop.wait(self._interval)

    async def _scrape(self, urls: list[str]) -> list[EngineStats | None]:
        import httpx

        limits = httpx.Limits(max_connections=256)
        async with httpx.AsyncClient(timeout=self._timeout, limits=limits) as client:
            return await asyncio.gather(*(self._scrape_one(client, url) for url in urls))

    async def _scrape_one(self, client: "httpx.AsyncClient", url: str) -> EngineStats | None:
        try:
            async with asyncio.timeout(self._timeout):
                response = await client.get(f"{url.rstrip('/')}/metrics")
            return parse_metrics(response.text) if response.status_code == 200 else None
        except Exception:  # whatever one endpoint does, the others are scraped
            return None
