"""What waiting for room brings: with and without a hold, from below the knee to far past it.

A script: `python benches/replay_hold.py TRACE [--seeds 3]`, TRACE being the conversation trace of
Mooncake. Prints Markdown; times are milliseconds, means over seeds.
"""

import argparse
from statistics import fmean

import numpy as np
from routecore.replay import ReplayResult, read_trace, run

KV_TOKENS = 458_752
CELLS = ((1, 64), (3, 512), (4, 512), (4, 64), (4.5, 512), (4.5, 64), (5, 64), (6, 64))


def longest(result: ReplayResult) -> float:
    """The longest time to first token."""
    return float(np.nanmax(result.per_request.ttft_ms))


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategy", default="expected_latency")
    args = parser.parse_args()
    trace = read_trace(args.trace)
    print("| load, block | hold | mean TTFT | p99 TTFT | mean E2E | longest TTFT | longest wait |")
    print("|---|---|---|---|---|---|---|")
    for speedup, block in CELLS:
        for hold in (False, True):
            runs = [
                run(
                    trace,
                    strategy=args.strategy,
                    speedup=speedup,
                    block_size=block,
                    kv_blocks=KV_TOKENS // block,
                    seed=seed,
                    hold=hold,
                )
                for seed in range(args.seeds)
            ]
            figures = (
                fmean(one.ttft_ms.mean for one in runs),
                fmean(one.ttft_ms.p99 for one in runs),
                fmean(one.e2e_ms.mean for one in runs),
                fmean(longest(one) for one in runs),
                fmean(float(np.nanmax(one.per_request.wait_ms)) for one in runs),
            )
            row = " | ".join(f"{figure:,.0f}" for figure in figures)
            print(f"| x{speedup:g}, {block} | {'on' if hold else 'off'} | {row} |", flush=True)


if __name__ == "__main__":
    main()
