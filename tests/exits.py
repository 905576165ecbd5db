"""Programs that end while threads of theirs are in the compiled core: `python exits.py KIND`.

`python exits.py --runs 50 [KIND …]` ends each so many times, with this Python, and counts the exit
codes that are not 0.
"""

import atexit
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

KINDS: dict[str, Callable[[], None]] = {}


def kind(start: Callable[[], None]) -> Callable[[], None]:
    """A program that starts threads and ends soon after."""
    KINDS[start.__name__] = start
    return start


def daemon(work: Callable[[], Any], threads: int = 2) -> None:
    """Does it again and again in daemon threads."""

    def run() -> None:
        while True:
            work()

    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()


@kind
def subscriber() -> None:
    """Hears KV events, and is not closed."""
    import msgspec
    import zmq
    from routecore.kv_events import KVEventSubscriber, KVSource

    context = zmq.Context.instance()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    sent = iter(range(1 << 40))

    def publish() -> None:
        n = next(sent)
        event = ["BlockStored", list(range(n * 64, n * 64 + 64)), None, list(range(1024)), 16]
        payload = msgspec.msgpack.encode([1.0, [event] * 8, None])
        socket.send_multipart([b"", n.to_bytes(8, "big"), payload])

    daemon(publish, 1)
    global kept
    kept = KVEventSubscriber([KVSource("http://a", f"tcp://127.0.0.1:{port}")])


@kind
def batch() -> None:
    """Routes batches."""
    from routecore import EndpointInfo, PrefixCacheRouter

    router = PrefixCacheRouter(seed=1)
    endpoints = [EndpointInfo(url=f"http://{i}") for i in range(64)]
    keys: list[Any] = [{"prompt": f"{i} " * 200} for i in range(2000)]
    daemon(lambda: router._core.route_batch(endpoints, {}, {}, keys))


@kind
def getters() -> None:
    """Routes over objects whose getters are Python code, and lets go of the interpreter there."""
    from routecore import LeastConnectionsRouter

    class Endpoint:
        def __init__(self, url: str) -> None:
            self.name = url

        @property
        def url(self) -> str:
            time.sleep(0)
            return self.name

    router = LeastConnectionsRouter(seed=1)
    endpoints: Any = [Endpoint(f"http://{i}") for i in range(8)]
    daemon(lambda: router.route_request(endpoints, {}, {}, None), 4)


def _trace() -> Any:
    from routecore import _core

    trace, n = _core.Trace(512), 200_000
    zeros = array("I", [0] * n)
    trace.extend(
        arrival=array("d", [float(i) for i in range(n)]),
        input=array("I", [512] * n),
        output=array("I", [16] * n),
        session=array("q", [-1] * n),
        delay=array("d", [0.0] * n),
        id_counts=zeros,
        ids=array("Q", []),
        after_counts=zeros,
        after=array("I", []),
    )
    return trace


@kind
def replay() -> None:
    """Replays a long trace."""
    from routecore import _core

    trace = _trace()
    engines = [(_core.PROFILES[0][0], 512, 4096, 8192, 64, 1.0)] * 4
    strategy: Any = ("least_connections", {}, [], [1])
    daemon(lambda: _core.replay(trace, engines, strategy=strategy))


@kind
def gateway() -> None:
    """Replays behind a gateway written in Python."""
    from routecore import _core

    class Gateway:
        def choose(self, *_: Any) -> int:
            return 0

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_: None

    trace = _trace()
    engines = [(_core.PROFILES[0][0], 512, 4096, 8192, 64, 1.0)] * 4
    daemon(lambda: _core.replay(trace, engines, gateway=Gateway()))


@kind
def scraper() -> None:
    """Scrapes engines of which none answers, and is not closed."""
    from routecore import EngineStatsScraper

    EngineStatsScraper([f"http://127.0.0.1:{9 + i}" for i in range(4)], 0.01).start()


@kind
def lookups() -> None:
    """Looks up tokens while events are applied."""
    import msgspec
    from routecore.kv_events import KVIndex

    index, sent = KVIndex(seed=1), iter(range(1 << 40))
    tokens = list(range(1024))

    def feed() -> None:
        n = next(sent)
        event = ["BlockStored", list(range(n * 64, n * 64 + 64)), None, tokens, 16]
        index.core.live("a", 0, [(n, msgspec.msgpack.encode([1.0, [event] * 8, None]))], False)

    daemon(feed, 1)
    daemon(lambda: index.matched(tokens, ["a"]), 2)


@kind
def joined() -> None:
    """A handler that was there before ours waits for a thread that routes batches."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def end() -> None:
        stop.set()
        for thread in threads:
            thread.join(0.5)

    atexit.register(end)
    from routecore import EndpointInfo, RoundRobinRouter

    router, endpoints = RoundRobinRouter(), [EndpointInfo(url=f"http://{i}") for i in range(8)]
    keys = [None] * 1000

    def run() -> None:
        while not stop.is_set():
            router._core.route_batch(endpoints, {}, {}, keys)

    threads.append(threading.Thread(target=run, daemon=True))
    threads[0].start()


@kind
def comparisons() -> None:
    """Routes over a list with an object that compares in Python, beside one of ours alone."""
    from routecore import EndpointInfo, LeastConnectionsRouter, RequestStatsMonitor

    class Endpoint:
        url = "http://other"

        def __eq__(self, other: object) -> bool:
            time.sleep(0)
            return False

        __hash__ = object.__hash__

    router, monitor = LeastConnectionsRouter(seed=1), RequestStatsMonitor(60.0)
    ours: list[Any] = [EndpointInfo(url=f"http://{i}") for i in range(8)]
    mixed = [*ours[:7], Endpoint()]

    def route() -> None:
        stats = monitor.get_request_stats(1.0)
        for endpoints in (ours, mixed, list(ours)):
            router.route_request(endpoints, {}, stats, None)

    daemon(route, 4)


@kind
def reports() -> None:
    """Reports requests whose ids and times are objects that Python code reads."""
    from routecore import RequestStatsMonitor

    class Slow:
        def __str__(self) -> str:
            time.sleep(0)
            return "r"

        def __float__(self) -> float:
            time.sleep(0)
            return 1.0

    monitor, slow = RequestStatsMonitor(60.0), cast(Any, Slow())

    def report() -> None:
        monitor.on_new_request("a", slow, slow)
        monitor.on_request_response("a", slow, slow)
        monitor.on_request_complete("a", slow, slow, None, slow)
        monitor.get_request_stats(slow)

    daemon(report, 4)


@kind
def waiters() -> None:
    """Waits for room that never comes."""
    from routecore import EndpointInfo, LeastConnectionsRouter, RequestStatsMonitor

    router, monitor = LeastConnectionsRouter(seed=1), RequestStatsMonitor(60.0)
    monitor.table.add("a")
    monitor.table.load_columns({"kv_capacity_tokens": array("d", [1000.0])}, urls=["a"])
    endpoints, body = (EndpointInfo(url="a"),), {"prompt": list(range(600))}

    def wait() -> None:
        router.acquire_sync(endpoints, None, monitor.get_request_stats(1.0), None, body)

    daemon(wait, 4)


@kind
def replicas() -> None:
    """Shares its load with others, and is not closed."""
    from routecore import Fleet

    folder = tempfile.TemporaryDirectory()
    urls = ["http://a", "http://b"]
    kept = [Fleet(urls, replicas=f"zmq+ipc://{folder.name}/s") for _ in range(2)]

    def request() -> None:
        for fleet in kept:
            with fleet.request({"prompt": "x" * 500}):
                pass

    globals()["kept"] = (folder, kept)
    daemon(request, 2)


def end_once(name: str, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, __file__, name],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def main() -> int:
    """See the module."""
    if sys.argv[1] != "--runs":
        KINDS[sys.argv[1]]()
        time.sleep(0.15 + os.getpid() % 7 / 50)
        return 0
    failed = 0
    for name in sys.argv[3:] or KINDS:
        codes = Counter(end_once(name).returncode for _ in range(int(sys.argv[2])))
        failed += sum(n for code, n in codes.items() if code)
        print(sys.version.split()[0], name, dict(codes), flush=True)
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
