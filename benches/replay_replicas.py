"""What several routers lose in replay, apart and sharing their load, beside one router.

`python benches/replay_replicas.py TRACE --seeds 3` replays a Mooncake trace at eight times its pace
on 16 engines, as docs/replicas.md has it; without a trace, generated traffic on 8 engines at 0.7
and 1.0 of the load that one router carries (mean TTFT at most three times that of a light load).
"""

import argparse
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from routecore.replay import Trace, generate, read_trace, run
from routecore.replay.result import ReplayResult
from routecore.replay.share import Share

WORKLOADS = {"chat": 30_000, "agentic": 6000, "documents": 8000, "mixed": 6000}


def replayed(traces: list[Trace], routers: int, share: str | None, **more: Any) -> dict[str, float]:
    """Means over the seeds."""
    found: list[ReplayResult] = [
        run(
            trace,
            seed=seed,
            routers=routers,
            share=None if share is None else Share.of(share),
            **more,
        )
        for seed, trace in enumerate(traces)
    ]
    return {
        "ttft": fmean(run.ttft_ms.mean for run in found),
        "p99": fmean(run.ttft_ms.p99 for run in found),
        "e2e": fmean(run.e2e_ms.mean for run in found),
        "hit": fmean(run.token_hit_rate for run in found),
        "share": fmean(run.max_share for run in found),
    }


def knee(traces: list[Trace], **more: Any) -> float:
    """The speed-up at which one router's mean TTFT is three times that of a light load."""
    idle = replayed(traces[:1], 1, None, speedup=0.1, **more)["ttft"]
    low, high = 0.1, 0.2
    while replayed(traces[:1], 1, None, speedup=high, **more)["ttft"] < 3 * idle and high < 400:
        low, high = high, high * 2
    for _ in range(6):
        middle = (low + high) / 2
        over = replayed(traces[:1], 1, None, speedup=middle, **more)["ttft"] >= 3 * idle
        low, high = (low, middle) if over else (middle, high)
    return low


def variants(routers: list[int], shares: list[str]) -> Iterator[tuple[int, str | None]]:
    yield 1, None
    for count in routers:
        yield count, None
        for share in shares:
            yield count, share


def compare(traces: list[Trace], routers: list[int], shares: list[str], **more: Any) -> None:
    one: dict[str, float] | None = None
    for count, share in variants(routers, shares):
        found = replayed(traces, count, share, **more)
        one = one or found
        over = "  ".join(
            f"{name} x{found[name] / one[name]:.3f}" for name in ("ttft", "p99", "e2e")
        )
        how = "" if count == 1 else f"sharing every {share}" if share else "apart"
        print(
            f"  {count} {how:20} TTFT {found['ttft']:8.1f} ms, p99 {found['p99']:7.0f}, E2E "
            f"{found['e2e']:8.0f}, hit {found['hit']:.3f}, most {found['share']:.4f}  {over}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", nargs="?", help="a Mooncake trace")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--strategy", default="expected_latency")
    parser.add_argument("--routers", default="2,4")
    parser.add_argument("--shares", default="50ms,200ms")
    parser.add_argument("--history", action="store_true", help="no KV events")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    given = parser.parse_args()
    routers, shares = [int(n) for n in given.routers.split(",")], given.shares.split(",")
    more: dict[str, Any] = {
        "strategy": given.strategy,
        "kv_event_delay_ms": None if given.history else 50.0,
    }
    if given.trace:
        traces = [read_trace(given.trace)] * given.seeds
        more |= {"endpoints": 16, "block_size": 512, "kv_blocks": 896}
        print(given.trace.rpartition("/")[2])
        compare(traces, routers, shares, speedup=8.0, jitter_ms=1500.0, **more)
        return
    for name in given.workloads.split(","):
        traces = [
            generate(name, requests=WORKLOADS[name], seed=seed) for seed in range(given.seeds)
        ]
        at = knee(traces, endpoints=8, **more)
        for part in (0.7, 1.0):
            print(f"{name}, {part} of the knee (x{part * at:.2f})")
            compare(traces, routers, shares, endpoints=8, speedup=part * at, **more)


if __name__ == "__main__":
    main()
