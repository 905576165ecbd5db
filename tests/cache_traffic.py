"""A small event loop: requests arrive, are routed, get a first token and end; time is simulated."""

import heapq
import random
from collections.abc import Callable
from typing import Any

from routecore import ROUTERS, EndpointInfo, RequestStatsMonitor
from routecore.endpoints.table import EndpointTable
from singletons import forget_singletons

Body = dict[str, Any]


def text(name: Any, tokens: int) -> str:
    """So many tokens of text that share nothing with those of another name."""
    return random.Random(str(name)).randbytes(2 * tokens).hex()


class Fleet:
    """Endpoints, a router and our monitor; events happen in the order of their time."""

    def __init__(self, strategy: str, count: int, **params: Any) -> None:
        forget_singletons()
        made: Any = ROUTERS[strategy]
        self.router = made(seed=1, **params)
        self.table = EndpointTable()
        self.monitor = RequestStatsMonitor(60.0, lease_timeout=600.0, table=self.table)
        self.endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(count)]
        self.now, self.requests = 1.0, 0
        self.free: dict[str, float] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Something to happen."""
        heapq.heappush(self.events, (time, len(self.events) + self.requests * 8, what))

    def run(self, until: float) -> None:
        """Lets happen what is due."""
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = until

    def route(self, prompt: str, engine_stats: Any = None) -> str:
        """A choice, as yet unreported."""
        stats = self.monitor.get_request_stats(self.now)
        body = {"model": "m", "prompt": prompt}
        url: str = self.router.route_request(self.endpoints, engine_stats, stats, None, body)
        return url

    def send_in_turn(self, prompt: str, work: float, stay: float) -> str:
        """A request to an engine that does one `work` after the other; it ends `stay` later."""
        url = self.route(prompt)
        self.free[url] = max(self.now, self.free.get(url, 0.0)) + work
        first = self.free[url] - self.now
        self.report(url, first, first + stay)
        return url

    def send(
        self, prompt: str, first: float = 0.2, stay: float = 2.0, engine_stats: Any = None
    ) -> str:
        """A request with its first token after `first` and its end after `stay` seconds."""
        url = self.route(prompt, engine_stats)
        self.report(url, first, stay)
        return url

    def report(self, url: str, first: float, stay: float) -> None:
        """Tells the monitor of a request that was just sent, and later of its answer."""
        self.requests += 1
        name = str(self.requests)
        self.monitor.on_new_request(url, name, self.now)
        done = self.monitor.on_request_response
        self.at(self.now + first, lambda: done(url, name, self.now))
        ended = self.monitor.on_request_complete
        self.at(self.now + stay, lambda: ended(url, name, self.now))

    def held(self, prompt: str) -> list[str]:
        """Endpoints that are taken to hold all of the prompt's full blocks but the last."""
        stats = self.monitor.get_request_stats(self.now)
        body = {"model": "m", "prompt": prompt}
        explained = self.router.explain(self.endpoints, None, stats, None, body)
        cached = {
            row.url: next(t.value for t in row.terms if t.name == "cached")
            for row in explained.candidates
        }
        return [url for url, tokens in cached.items() if tokens >= len(prompt) // 4 - 64]

    def column(self, name: str) -> list[float]:
        """A stat of each endpoint."""
        values, urls = self.table.column(name), self.table.urls
        return [float(values[urls.index(e.url)]) for e in self.endpoints if e.url in urls]

    def blocks(self) -> int:
        """Blocks that the index holds for all endpoints."""
        return sum(self.table.core.held(e.url)[0] for e in self.endpoints)
