"""Requests that fail with several routers while one engine is sick, apart and sharing.

`python benches/failing_replicas.py`: generated `chat` traffic, 80 requests a second on 8 simulated
engines; engine 1 answers errors from the 60th second on, for 20 seconds. Means over the seeds, as
the Markdown table of docs/replicas.md. Simulated time: the same wherever it runs.
"""

import argparse
from statistics import fmean

from routecore.replay import Share, Trace, generate, run

SICK, BEGIN, LASTS = 1, 60.0, 20.0
STRATEGIES = ("round_robin", "least_connections", "expected_latency")


def failed(
    strategy: str, routers: int, share: str | None, traces: list[Trace]
) -> tuple[float, float]:
    """Requests that failed, and the engine's share in the 20 s that begin 10 s after it is well."""
    counts, shares = [], []
    for seed, trace in enumerate(traces):
        found = run(
            trace,
            strategy=strategy,
            seed=seed,
            endpoints=8,
            routers=routers,
            share=None if share is None else Share.of(share),
            events=[f"sick@{BEGIN:g}s:{SICK}:{LASTS:g}s"],
        )
        counts.append(found.failed)
        rows, begin = found.per_request, 1e3 * (BEGIN + LASTS + 10)
        after = rows.endpoint[(rows.arrival_ms >= begin) & (rows.arrival_ms < begin + 20e3)]
        shares.append(float((after == SICK).mean()))
    return fmean(counts), fmean(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", default="50ms")
    given = parser.parse_args()
    traces = [generate("chat", requests=12_000, rate=80, seed=n) for n in range(given.seeds)]
    for strategy in STRATEGIES:
        cells = []
        for routers in (1, 2, 4, 8):
            for share in (None, given.share)[: 1 if routers == 1 else 2]:
                count, after = failed(strategy, routers, share, traces)
                cells.append(f"{count:.0f} ({after:.3f})")
        print(f"| `{strategy}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
