"""A forked child draws otherwise than its parent, has nothing in flight, and never hangs."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import forks
import pytest
from routecore import EndpointInfo, EngineStatsScraper, RandomRouter
from routecore.endpoints.table import EndpointTable

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
        timeout=60 + CHILDREN * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert None not in found and len(found) == CHILDREN
    assert all(child["in_flight"] == [0, 0] for child in found)
    for draws in ("seeded", "unseeded", "ties"):
        assert len({tuple(child[draws]) for child in found}) == CHILDREN, draws
    assert len({child["turns"][0] for child in found}) > 1


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
        scraper = EngineStatsScraper([url], 0.05, table=EndpointTable())
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
