"""A forked child draws otherwise than its parent, has nothing in flight, and never hangs."""

import ast
import json
import os
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forks
import pytest
import routecore
from routecore import (
    EndpointInfo,
    EngineStatsScraper,
    LeastConnectionsRouter,
    RandomRouter,
    RequestStatsMonitor,
    new_instance,
)
from routecore.endpoints.table import EndpointTable
from routecore.hold import Go

CHILDREN = int(os.environ.get("FORKS", "4"))
URLS = [EndpointInfo(url=f"http://{i}") for i in range(64)]


def in_child(look: Callable[[], Any]) -> Any:
    """What a look in a forked child gives."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = json.loads(pipe.read())
    os.wait()
    return found


@pytest.mark.parametrize("name", forks.KINDS)
def test_children_of_a_busy_process(name: str) -> None:
    done = subprocess.run(
        [sys.executable, forks.__file__, name, str(CHILDREN)],
        capture_output=True,
        text=True,
        timeout=60 + CHILDREN * (forks.LIMIT + 5),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert None not in found and len(found) == CHILDREN
    assert all(child["in_flight"] == [0, 0] for child in found)
    for draws in ("seeded", "unseeded", "ties"):
        assert len({tuple(child[draws]) for child in found}) == CHILDREN, draws
    # Of as many children as there are endpoints, each begins its turns at another.
    for begun in (found[:64], found[64:]):
        assert len({child["turns"][0] for child in begun}) == len(begun)


def test_the_same_forks_of_one_seed_draw_the_same() -> None:
    """The k-th child of a process draws what the k-th child of another run draws."""
    script = (
        "import os, routecore as r\n"
        "e = [r.EndpointInfo(url=f'http://{i}') for i in range(64)]\n"
        "router = r.RandomRouter(seed=7)\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        print([router.route_request(e, {}, {}, None) for _ in range(9)], flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print([router.route_request(e, {}, {}, None) for _ in range(9)])\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3
    # The parent goes on as if nothing had happened.
    router = RandomRouter(seed=7)
    assert runs[0][2] == str([router.route_request(URLS, {}, {}, None) for _ in range(9)])


def test_a_router_made_in_a_child_draws_from_the_seed_it_is_given() -> None:
    def drawn() -> list[str]:
        router = type.__call__(RandomRouter, seed=3)
        return [router.route_request(URLS, {}, {}, None) for _ in range(9)]

    assert in_child(drawn) == drawn()


class Metrics(BaseHTTPRequestHandler):
    """What an engine tells of itself."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'vllm:num_requests_running{model_name="m"} 7\n')

    def log_message(self, *_: Any) -> None:
        pass


def test_a_scraper_forgets_what_the_parent_saw_and_scrapes_again() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        scraper = EngineStatsScraper([url], 0.05, stale_after=60.0, table=EndpointTable())
        scraper.scrape_once()

        def seen() -> Any:
            running = scraper.table.column("num_running_requests")[0]
            return [len(scraper.get_engine_stats()), bool(running == 7), scraper.get_health()]

        def seen_later() -> Any:
            end = time.monotonic() + 20
            while not scraper.get_engine_stats() and time.monotonic() < end:
                time.sleep(0.01)
            return seen()

        try:
            assert seen() == [1, True, False]
            assert in_child(seen) == [0, False, False]
            scraper.start()
            assert in_child(seen_later) == [1, True, True]
            assert seen_later() == [1, True, True]
        finally:
            scraper.close()
            server.shutdown()


def test_who_waits_for_room_waits_in_the_parent() -> None:
    monitor = new_instance(RequestStatsMonitor, 60.0, table=EndpointTable())
    router = new_instance(LeastConnectionsRouter, seed=1)
    endpoints = (EndpointInfo(url="a"),)
    monitor.table.add("a")
    monitor.table.load_columns({"kv_capacity_tokens": array("d", [1000.0])}, urls=["a"])

    def goes(number: int) -> bool:
        body = {"prompt": list(range(number * 1000, number * 1000 + 600))}
        stats = monitor.get_request_stats(1.0)
        return isinstance(router.admit(endpoints, None, stats, None, body), Go)

    assert [goes(1), goes(2), router.hold.counts.waiting] == [True, False, 1]
    with router.hold._lock, router.hold._pumping:
        found = in_child(lambda: [router.hold.counts.waiting, goes(3), goes(4)])
    assert found == [0, True, False]
    assert router.hold.counts.waiting == 1


def locks(tree: ast.AST) -> Iterator[str]:
    """Names of what a lock of `threading` is assigned to."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        pairs: list[tuple[ast.expr, ast.expr]] = [(node.targets[0], node.value)]
        if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple):
            pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
        for target, value in pairs:
            if isinstance(value, ast.Call) and ast.unparse(value.func) in (
                "threading.Lock",
                "threading.RLock",
                "threading.Condition",
            ):
                yield target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)


def test_every_lock_of_the_package_is_made_anew_in_a_child() -> None:
    found = 0
    for path in Path(routecore.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        renewed = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "_after_fork":
                renewed |= set(locks(node))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "renew_lock":
                renewed.add(ast.literal_eval(node.args[1]))
        made = set(locks(tree))
        found += len(made)
        assert made <= renewed, f"{path}: see routecore.process"
    assert found > 5
