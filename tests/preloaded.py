"""A WSGI gateway that gunicorn loads before it forks: `gunicorn --preload preloaded:app`.

Reads the engines' URLs from `ENGINES`. `/` routes a completion, sends it on and tells what this
worker saw.
"""

import itertools
import json
import os
import urllib.request
from collections.abc import Iterable
from typing import Any

from routecore import (
    EndpointInfo,
    EngineStatsScraper,
    LeastConnectionsRouter,
    RandomRouter,
    RequestStatsMonitor,
)

endpoints = [EndpointInfo(url=url) for url in os.environ["ENGINES"].split(",")]
many = [EndpointInfo(url=str(i)) for i in range(64)]
monitor = RequestStatsMonitor(60.0)
router, draws = LeastConnectionsRouter(), RandomRouter(seed=7)
scraper = EngineStatsScraper([e.url for e in endpoints], 0.1)
scraper.start()
# Of the master, which no worker may take for its own.
monitor.on_new_request(endpoints[0].url, "master", 0.0)
names = itertools.count()
first = dict[int, Any]()


def app(_: dict[str, Any], start: Any) -> Iterable[bytes]:
    """One request."""
    worker = os.getpid()
    if worker not in first:
        drawn = [draws.route_request(many, {}, {}, None) for _ in range(24)]
        first[worker] = {"drawn": drawn, "in_flight": monitor.in_flight}
    stats: Any = monitor.get_request_stats(1.0)
    url = router.route_request(endpoints, scraper.get_engine_stats(), stats, None)
    name = f"{worker}-{next(names)}"
    monitor.on_new_request(url, name, 1.0)
    body = json.dumps({"model": "m", "prompt": "hello", "max_tokens": 2}).encode()
    asked = urllib.request.Request(
        f"{url}/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        status = answer.status
    monitor.on_request_complete(url, name, 2.0)
    found = {
        "worker": worker,
        "url": url,
        "status": status,
        "scrapes": scraper.get_health(),
        "fresh": len(scraper.get_engine_stats()),
        "left": monitor.in_flight,
        **first[worker],
    }
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
