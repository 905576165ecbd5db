"""Scrapes the `/metrics` of all engines at once and keeps what is fresh."""

import math
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from routecore.endpoints.metrics import Reading, hit_rate
from routecore.endpoints.metrics_http import MAX_OPEN, MetricsHttp, read
from routecore.endpoints.monitor import SingletonMeta
from routecore.endpoints.ranks import rank_of
from routecore.endpoints.stats import EngineStats
from routecore.endpoints.table import EndpointTable, default_table
from routecore.endpoints.views import EngineStatsView
from routecore.errors import RouteError
from routecore.interface import Endpoint
from routecore.process import watch
from routecore.uncopied import Uncopied

if TYPE_CHECKING:
    import asyncio

    import httpx

Endpoints = Iterable[str | Endpoint]

_EXIT_SECONDS = 0.5  # that the process's end waits for an answer
_of_parents: list[object] = []  # loops of threads that a fork left behind
_FLUSH_SECONDS = 0.02  # answers that come this close together are stored in one go


class _Entry(NamedTuple):
    """What the last good scrape of an endpoint gave."""

    reading: Reading
    rate: float | None
    time: float


class EngineStatsScraper(Uncopied, metaclass=SingletonMeta):
    """Keeps the engines' own figures, in the table and as a mapping.

    Counts are summed over models and data-parallel ranks; KV cache usage is their mean. An endpoint
    `url@rank` gets the figures of that rank; its engine is asked once for all of its ranks. The hit
    rate is that of the last scrape interval. Proxies named in the environment are not used.

    Args:
        endpoints: URLs or endpoints, or a function that returns those of the moment.
        scrape_interval: Seconds between scrapes.
        timeout: Seconds after which an endpoint's answer is given up.
        stale_after: Seconds after which an endpoint that stopped answering has no stats; three
            intervals if left out.
        table: Where to store; the shared table if left out.
        headers: Sent with every scrape, such as a token:
            `{"Authorization": "Bearer …"}`.
        verify: Whether `https` endpoints must show a certificate that the system trusts; the path
            of a CA file to trust that one instead; False to check none.
        path: Where the engines serve their metrics; TensorRT-LLM's server: `/prometheus/metrics`.

    Raises:
        RouteError: If a duration is not above 0, or the CA file cannot be read.
    """

    def __init__(
        self,
        endpoints: Endpoints | Callable[[], Endpoints],
        scrape_interval: float = 1.0,
        *,
        timeout: float = 1.0,
        stale_after: float | None = None,
        table: EndpointTable | None = None,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        path: str = "/metrics",
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
            self._endpoints: Callable[[], Endpoints] = lambda: fixed
        else:
            self._endpoints = endpoints
        self._interval, self._timeout, self._stale_after = scrape_interval, timeout, stale_after
        self._http = MetricsHttp(path, headers or {}, verify, timeout)
        self.table: EndpointTable = default_table() if table is None else table
        self._entries: dict[str, _Entry] = {}
        # Replaced, never changed: a view handed out stays as it was, and costs nothing to make.
        self._fresh: dict[str, EngineStats] = {}
        self._oldest = math.inf  # time of the oldest entry
        self._failures = 0
        self._skipped = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None
        watch(self)

    @property
    def failures(self) -> int:
        """Scrapes that gave no stats: refused, too slow, not 200, or without vLLM's metrics."""
        return self._failures

    @property
    def skipped_samples(self) -> int:
        """Samples passed over in good answers: unreadable, NaN, infinite or negative."""
        return self._skipped

    def start(self) -> None:
        """Scrape in a background thread until `close()`; a second call changes nothing."""
        import asyncio

        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            loop = asyncio.new_event_loop()
            task = loop.create_task(self._run(self._http.client()))

            def run() -> None:
                try:
                    with suppress(asyncio.CancelledError):
                        loop.run_until_complete(task)
                finally:
                    loop.close()

            # In the middle of a scrape as well, however slow the engine is.
            self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
            self._thread = threading.Thread(target=run, name="routecore-scraper", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the background thread and forget its stats; `start()` may be called again."""
        with self._lock:
            thread, stop = self._thread, self._stop
            self._thread = self._stop = None
        if thread is not None and stop is not None:
            if thread.is_alive():
                with suppress(RuntimeError):  # its loop ended by itself just now
                    stop()
            if thread is not threading.current_thread():
                thread.join(2 * self._timeout + 1.0)
        self._drop(lambda _url, _entry: True)

    def _at_exit(self) -> None:
        thread, stop = self._thread, self._stop
        if thread is not None and stop is not None:
            with suppress(RuntimeError):  # its loop ended by itself just now
                stop()
            thread.join(_EXIT_SECONDS)

    def _after_fork(self) -> None:
        started = self._thread is not None
        # Closing the loop here would take the parent's sockets out of the parent's selector.
        _of_parents.append(self._stop)
        self._lock, self._thread, self._stop = threading.Lock(), None, None
        self._drop(lambda _url, _entry: True)
        self._fresh = {}
        if started:
            self.start()

    def get_health(self) -> bool:
        """Whether the background thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def get_engine_stats(self) -> EngineStatsView:
        """Fresh stats of all endpoints, as a mapping that costs O(1) to make.

        What is too old at this moment is let go of here, whether the background thread is busy,
        dead, or has stayed in the parent of a fork.
        """
        if time.monotonic() - self._oldest > self._stale_after:
            self._drop(self._is_stale)
        return EngineStatsView(self.table.core, self._fresh)

    def scrape_once(self) -> None:
        """Scrape all endpoints now, concurrently, and let go of stats that are too old."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        async def once() -> None:
            async with self._http.client() as client:
                await self._scrape(client, {}, None)

        # In a thread of its own, because the caller's may have an event loop already.
        with ThreadPoolExecutor(1, "routecore-scraper") as pool:
            pool.submit(lambda: asyncio.run(once())).result()

    async def _run(self, client: "httpx.AsyncClient") -> None:
        """Scrape until it is cancelled."""
        import asyncio

        running: dict[str, asyncio.Task[None]] = {}
        async with client:
            try:
                while True:
                    try:
                        await self._scrape(client, running, self._timeout)
                    except Exception:  # an endpoints() that fails must not end scraping
                        self._count_failure()
                        self._drop(self._is_stale)
                    await asyncio.sleep(self._interval)
            finally:
                for task in running.values():
                    task.cancel()
                await asyncio.gather(*running.values(), return_exceptions=True)

    async def _scrape(
        self,
        client: "httpx.AsyncClient",
        running: "dict[str, asyncio.Task[None]]",
        patience: float | None,
    ) -> None:
        """One round. Scrapes that last longer than `patience` are left `running` into the next."""
        import asyncio

        urls = dict.fromkeys(e if isinstance(e, str) else e.url for e in self._endpoints())
        engines: dict[str, dict[str, int | None]] = {}  # address → endpoint → its rank
        for url in urls:
            address, rank = rank_of(url)
            engines.setdefault(address, {})[url] = rank
        answers: dict[str, Reading] = {}
        gate, turn = asyncio.Semaphore(MAX_OPEN), asyncio.Lock()
        loop = asyncio.get_running_loop()

        def flush() -> None:
            self._store(answers)
            answers.clear()

        async def scrape(address: str, ranks: dict[str, int | None]) -> None:
            try:
                async with gate:
                    text = await self._http.fetch(client, address)
                readings = await read(text, turn, list(ranks.values()))
            except Exception:  # whatever one engine does, the others are scraped
                return self._count_failure()
            finally:
                running.pop(address, None)
            reported = {
                url: reading for url, reading in zip(ranks, readings, strict=True) if reading
            }
            if len(reported) < len(ranks):
                self._count_failure()  # the engine has no such rank
            if reported and not answers:
                loop.call_later(_FLUSH_SECONDS, flush)
            answers.update(reported)

        self._drop(lambda url, _entry: url not in urls)
        for address in running.keys() - engines:
            running[address].cancel()
        for address, ranks in engines.items():
            if address not in running:
                running[address] = asyncio.create_task(scrape(address, ranks))
        if running:
            await asyncio.wait(list(running.values()), timeout=patience)
        flush()
        self._drop(self._is_stale)

    def _count_failure(self) -> None:
        with self._lock:
            self._failures += 1

    def _is_stale(self, _url: str, entry: _Entry) -> bool:
        return time.monotonic() - entry.time > self._stale_after

    def _store(self, answers: dict[str, Reading]) -> None:
        if not answers:
            return
        now = time.monotonic()
        with self._lock:
            fresh = dict(self._fresh)
            groups: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
            for url, reading in answers.items():
                before = self._entries.get(url)
                if before is None:
                    rate = hit_rate(None, None, reading)
                else:
                    rate = hit_rate(before.reading, before.rate, reading)
                self._entries[url] = _Entry(reading, rate, now)
                self._skipped += reading.skipped
                fresh[url] = _stats(reading, rate)
                columns = _columns(reading, rate)
                if before is not None and _columns(before.reading, before.rate).keys() - columns:
                    self.table.clear_stats(url)
                groups.setdefault(tuple(columns), {})[url] = columns
            for names, rows in groups.items():
                for url in rows:
                    self.table.add(url)
                self.table.load_columns(
                    {name: array("d", [row[name] for row in rows.values()]) for name in names},
                    urls=list(rows),
                )
            self._fresh = fresh
            self._oldest = min(entry.time for entry in self._entries.values())

    def _drop(self, gone: Callable[[str, _Entry], bool]) -> None:
        with self._lock:
            urls = {url for url, entry in self._entries.items() if gone(url, entry)}
            for url in urls:
                del self._entries[url]
                self.table.clear_stats(url)
            if urls:
                self._fresh = {u: stats for u, stats in self._fresh.items() if u not in urls}
                times = (entry.time for entry in self._entries.values())
                self._oldest = min(times, default=math.inf)


def _stats(reading: Reading, rate: float | None) -> EngineStats:
    return EngineStats(
        num_running_requests=round(reading.running or 0),
        num_queuing_requests=round(reading.queuing or 0),
        gpu_prefix_cache_hit_rate=rate or 0.0,
        gpu_prefix_cache_hits_total=round(reading.hits or 0),
        gpu_prefix_cache_queries_total=round(reading.queries or 0),
        gpu_cache_usage_perc=reading.usage or 0.0,
    )


def _columns(reading: Reading, rate: float | None) -> dict[str, float]:
    """What is known, by column; what is not stays out, so that it is not taken for 0."""
    open_requests = None
    if reading.running is not None and reading.queuing is not None:
        open_requests = reading.running + reading.queuing
    values = {
        "num_running_requests": reading.running,
        "num_queuing_requests": reading.queuing,
        "gpu_cache_usage_perc": reading.usage,
        "gpu_prefix_cache_hit_rate": rate,
        "active_connections": open_requests,
        "kv_capacity_tokens": reading.kv_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}
