"""What letting in whole sessions brings where their contexts outgrow the KV caches.

A script: `python benches/replay_sessions.py [--seeds 3]`. The circle of the failure modes: 96
sessions of some 16,000 tokens and 25 turns on 8 engines, whose caches hold them all, a half or a
third; between two turns of a session passes one second on average, as with agents' tools, or five.
Prints Markdown: output tokens a second, mean TTFT and mean E2E in seconds without a hold, with one
of requests, and with one of sessions.
"""

import argparse
import itertools
import sys
from pathlib import Path
from statistics import fmean

from routecore import HoldLimits
from routecore.replay import ReplayResult, Trace, run

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from replay.failure_modes import BLOCK, N, _circle

ENGINES = (
    *("qwen3-32b-h100-tp2", "llama-3.1-70b-h100-tp4", "llama-3.1-8b-h100-tp1"),
    "dynamo-polynomial",
)
SETS = (0.5, 1.0, 2.0, 3.0)
PAUSES_S = (1.0, 5.0)
HOLDS = {"none": False, "requests": True, "sessions": HoldLimits(sessions="session")}


def figures(runs: list[ReplayResult]) -> list[float]:
    """Means over the seeds."""
    return [
        fmean(one.output_tokens_per_s for one in runs),
        fmean(one.ttft_ms.mean for one in runs) / 1e3,
        fmean(one.e2e_ms.mean for one in runs) / 1e3,
    ]


def replays(trace: Trace, engine: str, size: float, hold: bool | HoldLimits, seeds: int) -> str:
    """One cell of the table."""
    blocks = int(96 * 16_000 / size / N / BLOCK)
    settings = {"endpoints": N, "engine": engine, "kv_blocks": blocks}
    runs = [
        run(trace, strategy="expected_latency", seed=seed, hold=hold, **settings)
        for seed in range(seeds)
    ]
    return " / ".join(f"{figure:,.3g}" for figure in figures(runs))


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print(f"| engine | pause s | contexts / KV | {' | '.join(HOLDS)} |")
    print("|---" * (len(HOLDS) + 3) + "|")
    for engine, pause, size in itertools.product(ENGINES, PAUSES_S, SETS):
        trace = _circle(1e3 * pause)
        row = [replays(trace, engine, size, hold, args.seeds) for hold in HOLDS.values()]
        print(f"| {engine} | {pause:g} | {size:g} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
