"""Millions of requests through one process: counts stay exact, memory stays where it is.

`python benches/soak.py [requests]`: one in ten fails, one in twenty never ends, the host's clock
is set an hour ahead or back every 100,000 requests, and 100,000 endpoints come and go. Ends with
exit code 1 if a count is wrong or memory grew by more than 2 % after the first million.
"""

import os
import random
import sys
from collections import deque
from pathlib import Path

from routecore import (
    ROUTERS,
    EndpointInfo,
    EndpointTable,
    RequestStatsMonitor,
)

LEASE = 60.0
OPEN = 40  # requests in flight that will end
STEP = 0.002  # seconds from one request to the next
JUMP_EVERY = 100_000


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Run, and say what came of it."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    strategy = sys.argv[2] if len(sys.argv) > 2 else "least_connections"
    rng = random.Random(7)
    table = EndpointTable()
    monitor = type.__call__(RequestStatsMonitor, 60.0, lease_timeout=LEASE, table=table)
    router = type.__call__(ROUTERS[strategy], seed=1)
    now, named, abandoned, sent_to = 1_700_000_000.0, 0, 0, deque[tuple[str, str]]()
    fleet: deque[EndpointInfo] = deque()
    first, most, wrong = 0.0, 0.0, []
    body = {"model": "m", "prompt": "What is the capital of France? " * 20}
    for at in range(requests):
        now += STEP
        if at % JUMP_EVERY == JUMP_EVERY - 1:
            now += rng.choice((-3_600.0, 3_600.0))
        if at % max(1, requests // 100_000) == 0 or len(fleet) < 8:
            fleet.append(EndpointInfo(url=f"http://endpoint-{named}"))
            named += 1
            if len(fleet) > 8:
                fleet.popleft()
            endpoints = list(fleet)
        stats = monitor.get_request_stats(now)
        url = router.route_request(endpoints, {}, stats, None, body)
        monitor.on_new_request(url, f"{at}", now)
        if rng.random() < 0.05:
            abandoned += 1
        else:
            sent_to.append((url, f"{at}"))
        if len(sent_to) > OPEN:
            url, name = sent_to.popleft()
            if rng.random() < 0.10:
                monitor.on_request_failed(url, name, now)
            else:
                monitor.on_request_response(url, name, now)
                monitor.on_request_complete(url, name, now)
        if at % 250_000 == 249_999:
            memory = resident_mb()
            if at >= 999_999:
                first = first or memory
                most = max(most, memory)
            if monitor.in_flight > OPEN + 2 * LEASE / STEP * 0.06:
                wrong.append(f"{monitor.in_flight} in flight after {at + 1} requests")
            print(
                f"{at + 1:>9,} requests  {memory:7.1f} MB  {len(table):,} rows  "
                f"{monitor.in_flight:,} in flight",
                flush=True,
            )
    for url, name in sent_to:
        monitor.on_request_complete(url, name, now)
    for _ in range(200):
        now += 0.9
        monitor.get_request_stats(now)
    if monitor.leases_expired != abandoned:
        wrong.append(f"{abandoned} requests never ended, {monitor.leases_expired} leases ran out")
    if monitor.in_flight or table.column("in_flight").sum():
        wrong.append(f"{monitor.in_flight} in flight at the end")
    if first and most > 1.02 * first:
        wrong.append(f"memory grew from {first:.1f} to {most:.1f} MB")
    print("\n".join(wrong) or f"all counts exact: {named:,} endpoints, {abandoned:,} never ended")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
