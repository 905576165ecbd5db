"""Terse chats on two small engines on a CPU: hits at light load, TTFT near capacity.

A script: `python benches/replay_terse.py [--seeds 3]`. The real-engine comparison
(`benches/hosts/production_stack/real_engines.py`) in simulation: two engines of 1,000 KV blocks of
32 tokens that prefill 1.5 ms a token, chats behind six system prompts. Prints Markdown, a line per
load (requests a second) and strategy: mean TTFT, mean E2E, p99 TTFT in ms, and the token hit rate.
`stays` follows the longest match whatever the load, as production-stack's prefixaware does.
"""

import argparse
from statistics import fmean

from routecore.replay import generate, run

RATES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
STRATEGIES = {
    "stays": ("prefix_cache", {"load_factor": 1000.0}),
    "round_robin": ("round_robin", {}),
    "prefix_cache": ("prefix_cache", {}),
    "cache_aware": ("cache_aware", {}),
    "dynamo_cost 4": ("dynamo_cost", {"prefill_weight": 4.0}),
    "lmetric": ("lmetric", {}),
    "expected_latency": ("expected_latency", {}),
}


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    args = parser.parse_args()
    print("| requests/s | strategy | mean TTFT | mean E2E | p99 TTFT | hits % |")
    print("|---|---|---|---|---|---|")
    for rate in RATES:
        for label, (word, params) in STRATEGIES.items():
            runs = [
                run(
                    generate("terse", requests=args.requests, rate=rate, seed=seed),
                    strategy=word,
                    params=params,
                    seed=seed,
                    endpoints=2,
                    engine="small-on-cpu",
                    block_size=32,
                    kv_blocks=1000,
                    max_sequences=16,
                )
                for seed in range(args.seeds)
            ]
            figures = (
                fmean(one.ttft_ms.mean for one in runs),
                fmean(one.e2e_ms.mean for one in runs),
                fmean(one.ttft_ms.p99 for one in runs),
                100 * fmean(one.token_hit_rate for one in runs),
            )
            row = " | ".join(f"{figure:,.1f}" for figure in figures)
            print(f"| {rate:g} | {label} | {row} |", flush=True)


if __name__ == "__main__":
    main()
