"""What several routers that share cost: CPU and bytes of each, and the time of a decision.

`python benches/replicas_cost.py`: 8 processes, each a router of 64 endpoints with 200 requests a
second of 2,000 tokens that last 2 seconds, over a `redis-server` of its own on loopback and over
ZMQ. CPU is that of all threads of a process but the one that sends requests; figures are of the
time after the first 5 seconds. A last line compares decisions with sharing on and off, in one
process and in turns. Bars: 2% of a core, 200 kB a second that a router sends, 5% of a decision.
"""

import argparse
import heapq
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routecore import Fleet, _core

WARM = 5.0
LASTS = 2.0
"""Seconds of a request; its first token comes after a tenth of them."""


def urls(count: int) -> list[str]:
    return [f"http://engine-{n:03}:8000" for n in range(count)]


def bodies(seed: int) -> Iterator[dict[str, Any]]:
    """Conversations of up to 8 turns, each 250 tokens longer than the one before it."""
    draw = random.Random(seed)
    while True:
        text = " ".join(f"{draw.getrandbits(40):010x}" for _ in range(600))
        for _ in range(8):
            text += " ".join(f"{draw.getrandbits(40):010x}" for _ in range(90))
            yield {"prompt": text}


def router(given: argparse.Namespace) -> None:
    """One router, its traffic and what it cost, as JSON on stdout."""
    address, strategy = given.router, given.strategy
    fleet = Fleet(urls(given.endpoints), strategy, replicas=address)
    assert fleet.replicas is not None
    prompts, order = bodies(given.seed), itertools.count()
    due: list[tuple[float, int, bool, Any]] = []
    begin, sent, peers, before = time.monotonic(), 0, 0, None
    while (now := time.monotonic()) < begin + WARM + given.seconds:
        if before is None and now >= begin + WARM:
            before = (now, time.process_time(), time.thread_time(), fleet.replicas.traffic, sent)
            peers = len(fleet.replicas.peers)
        while due and due[0][0] <= now:
            _, _, ends, request = heapq.heappop(due)
            if ends:
                request.__exit__(None, None, None)
            else:
                request.first_token()
        while sent < (now - begin) * given.rate:
            request = fleet.request(next(prompts)).__enter__()
            heapq.heappush(due, (now + 0.1 * LASTS, next(order), False, request))
            heapq.heappush(due, (now + LASTS, next(order), True, request))
            sent += 1
        time.sleep(0.002)
    assert before is not None
    traffic, then = fleet.replicas.traffic, before[3]
    seconds = time.monotonic() - before[0]
    others = (time.process_time() - before[1]) - (time.thread_time() - before[2])
    print(
        json.dumps(
            {
                "rate": (sent - before[4]) / seconds,
                "cpu": others / seconds,
                "sent": (traffic.sent_bytes - then.sent_bytes) / seconds,
                "heard": (traffic.heard_bytes - then.heard_bytes) / seconds,
                "messages": (traffic.sent - then.sent) / seconds,
                "peers": peers,
            }
        )
    )
    fleet.close()


@contextmanager
def channel(kind: str) -> Iterator[str]:
    """An address, while it is there."""
    with tempfile.TemporaryDirectory(prefix="routecore-bench-") as folder:
        if kind == "zmq":
            yield f"ipc://{folder}/s"
            return
        socket = f"{folder}/redis.sock" if kind == "unix" else ""
        port = "0" if kind == "unix" else str(random.SystemRandom().randrange(20_000, 30_000))
        options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        options += ["--unixsocket", socket] if socket else []
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            yield f"unix://{socket}" if socket else f"redis://127.0.0.1:{port}"
            spent = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            print(f"  the server itself: {(int(spent[11]) + int(spent[12])) / 100:.1f} s of CPU")
        finally:
            server.kill()
            server.wait()


def costs(kind: str, given: argparse.Namespace) -> None:
    with channel(kind) as address:
        names = ("endpoints", "rate", "seconds", "strategy")
        options = [text for name in names for text in (f"--{name}", str(getattr(given, name)))]
        command = [sys.executable, __file__, "--router", address, *options, "--seed"]
        made = [
            subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE)
            for seed in range(given.routers)
        ]
        found = [json.loads(process.communicate()[0]) for process in made]
    spread = {
        name: (statistics.fmean(one[name] for one in found), max(one[name] for one in found))
        for name in found[0]
    }
    cpu, sent, heard = spread["cpu"], spread["sent"], spread["heard"]
    print(
        f"  {kind}: CPU {100 * cpu[0]:.2f}% of a core each, {100 * cpu[1]:.2f}% at most; sends "
        f"{sent[0] / 1e3:.0f} kB/s in {spread['messages'][0]:.0f} messages, hears "
        f"{heard[0] / 1e3:.0f} kB/s; {spread['rate'][0]:.0f} requests a second each, "
        f"{min(one['peers'] for one in found)} peers",
        flush=True,
    )


def decisions(given: argparse.Namespace) -> None:
    """CPU time of requests with sharing on over that without, block by block in turns."""
    ratios = []
    for _ in range(3):
        alone, shared = (Fleet(urls(given.endpoints), given.strategy) for _ in range(2))
        peer = Fleet(urls(given.endpoints), given.strategy)
        prompts = [next(bodies(n)) for n in range(64)]
        says, hears = (
            _core.Replicas(fleet.table.core, group="g", origin=at, epoch=1)
            for at, fleet in enumerate((peer, shared), 1)
        )
        busy = [peer.request(body).__enter__() for body in prompts * 8]
        for fleet in (alone, shared):
            for body in prompts * 4:
                with fleet.request(body) as request:
                    request.first_token()

        def block(fleet: Fleet, prompts: list[dict[str, Any]] = prompts) -> float:
            begin = time.thread_time()
            for body in prompts:
                with fleet.request(body) as request:
                    request.first_token()
            return time.thread_time() - begin

        for turn in range(300):
            message = says.tell(turn * 1.0)
            assert message is not None
            hears.hear(message, turn * 1.0)
            off, on = block(alone), block(shared)
            on, off = on + block(shared), off + block(alone)
            ratios.append(on / off)
        assert len(busy) == 512 and shared.table.column("in_flight").sum() > 400
    print(f"  a request with sharing on over off: {statistics.median(ratios):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--router", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--routers", type=int, default=8)
    parser.add_argument("--endpoints", type=int, default=64)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--strategy", default="expected_latency")
    parser.add_argument("--channels", default="redis,zmq")
    given = parser.parse_args()
    if given.router:
        router(given)
        return
    print(f"{given.routers} routers, {given.endpoints} endpoints, {given.rate:g} requests/s each")
    for kind in filter(None, given.channels.split(",")):
        if kind != "zmq" and shutil.which("redis-server") is None:
            print(f"  {kind}: redis-server is not installed")
        else:
            costs(kind, given)
    decisions(given)


if __name__ == "__main__":
    main()
