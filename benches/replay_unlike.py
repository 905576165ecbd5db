"""Cells unlike the prior of `expected_latency`: how far is it from the best rival of EACH cell?

A script: `python benches/replay_unlike.py [--seeds 3] [--only PATTERN] [--rivals FILE]`. Traffic of
very mixed prompts, of short answers and in bursts, on 4, 8 and 16 engines that take a third, 1, 8
and 30 times as long as the prior says, at 0.7, 1 and 1.15 of the knee. Prints Markdown: mean TTFT,
E2E and p99 TTFT over those of whoever is best in that cell and figure, chosen with hindsight among
all other strategies, `dynamo_cost` at four weights. `--rivals` keeps their figures in a file for
the next time.
"""

import argparse
import fnmatch
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import msgspec
from replay_cells import FIGURES, RIVALS, WEIGHTS, Cell
from routecore.replay import ReplayResult, generate

LOADS = (0.7, 1.0, 1.15)
ENDPOINTS = (4, 8, 16)
ENGINES = ("3x-quicker", "qwen3-32b-h100-tp2", "8x-slower", "30x-slower")
# Requests a second at which the mean TTFT of dynamo_cost, weight 4, is three times that of an idle
# fleet, in the order of ENDPOINTS: the knee, by bisection.
KNEES = {
    ("short", "3x-quicker"): (284, 661, 2083),
    ("short", "qwen3-32b-h100-tp2"): (87.28, 211, 603.3),
    ("short", "8x-slower"): (10.11, 24.58, 57.83),
    ("short", "30x-slower"): (2.697, 6.277, 15.26),
    ("mixed", "3x-quicker"): (38.71, 91.58, 198.7),
    ("mixed", "qwen3-32b-h100-tp2"): (12.83, 29.87, 65.51),
    ("mixed", "8x-slower"): (1.587, 3.634, 8.233),
    ("mixed", "30x-slower"): (0.4119, 0.985, 2.148),
    ("burst", "3x-quicker"): (16.81, 60.03, 176.3),
    ("burst", "qwen3-32b-h100-tp2"): (5.485, 20.01, 60.72),
    ("burst", "8x-slower"): (1.545, 5.281, 13.77),
    ("burst", "30x-slower"): (0.6965, 2.172, 5.055),
}
BARS = {"ttft_ms mean": 0.95, "e2e_ms mean": 0.92, "ttft_ms p99": 1.05}
Figures = dict[str, float]


def cells() -> Iterator[Cell]:
    """Every one."""
    for (kind, engine), knees in KNEES.items():
        for endpoints, knee in zip(ENDPOINTS, knees, strict=True):
            for load in LOADS:
                trace = generate(kind, requests=400 * endpoints, rate=load * knee, seed=1)
                name = f"{kind} {load:g}, {endpoints} x {engine}"
                yield Cell(name=name, trace=trace, endpoints=endpoints, engine=engine)


def figures(runs: list[ReplayResult]) -> Figures:
    """Means over the seeds."""
    mean = fmean
    return {f"{f} {p}": mean(getattr(getattr(run, f), p) for run in runs) for f, p in FIGURES}


def rivals(cell: Cell, seeds: int) -> dict[str, Figures]:
    """What everybody else makes of it."""
    contenders = [
        (f"dynamo_cost {w}", "dynamo_cost", {"prefill_weight": float(w)}) for w in WEIGHTS
    ]
    contenders += [(word, word, {}) for word in RIVALS]
    return {
        label: figures([cell.replay(word, params, seed) for seed in range(seeds)])
        for label, word, params in contenders
    }


def geometric(values: list[float]) -> float:
    """Mean of ratios."""
    return math.exp(fmean(map(math.log, values)))


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*")
    parser.add_argument("--rivals", type=Path)
    args = parser.parse_args()
    known: dict[str, dict[str, Figures]] = {}
    if args.rivals and args.rivals.exists():
        known = msgspec.json.decode(args.rivals.read_bytes(), type=dict[str, dict[str, Figures]])
    ratios: dict[str, dict[str, float]] = {}
    print("| cell | mean TTFT (best rival) | E2E | p99 TTFT |\n|---|---|---|---|")
    for cell in cells():
        if not fnmatch.fnmatch(cell.name, args.only):
            continue
        key = f"{cell.name} {args.seeds}"
        if key not in known:
            known[key] = rivals(cell, args.seeds)
            if args.rivals:
                args.rivals.write_bytes(msgspec.json.encode(known))
        ours = figures([cell.replay("expected_latency", {}, seed) for seed in range(args.seeds)])
        best = {name: min(known[key], key=lambda r: known[key][r][name]) for name in ours}
        row = {name: ours[name] / known[key][best[name]][name] for name in ours}
        ratios[cell.name] = row
        shown = [f"{row[name]:.2f} ({best[name]})" for name in ours]
        print(f"| {cell.name} | {' | '.join(shown)} |", flush=True)
    print("\n| cells | mean TTFT: geometric mean, worst | E2E | p99 TTFT |\n|---|---|---|---|")
    groups = ["", *(f"{w} " for w in ("short", "mixed", "burst")), *(f" x {e}" for e in ENGINES)]
    groups += [f" {load:g}," for load in LOADS]
    for group in groups:
        rows = [row for name, row in ratios.items() if group in name]
        if rows:
            columns = [[row[name] for row in rows] for name in BARS]
            shown = [f"{geometric(c):.2f}, {max(c):.2f}" for c in columns]
            print(f"| {group.strip(' ,') or 'all'} | {' | '.join(shown)} |")
    bars = ", ".join(f"{name} {bar}" for name, bar in BARS.items())
    print(f"\nBars: geometric means {bars}; worst 1.15.")


if __name__ == "__main__":
    main()
