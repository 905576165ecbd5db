"""Every strategy on many fleets, traces and loads: who is ever better than `expected_latency`?

A script: `python benches/replay_cells.py [TRACE] [--seeds 3] [--only PATTERN]`, TRACE being the
conversation trace of Mooncake; without it, the generated workloads at the load at which the best
weight breaks. Prints Markdown. A ratio is a mean over paired seeds, to the best
weight of `dynamo_cost` in that cell and figure: the hardest rival, chosen with hindsight. Noise is
what lies within the 95 % interval, or within 3 % of a mean and 6 % of a p99.
"""

import argparse
import fnmatch
from collections.abc import Iterator
from statistics import fmean

import msgspec
from routecore.replay import PROFILES, ReplayResult, Trace, difference, generate, read_trace, run

WEIGHTS = (1, 2, 4, 8)
RIVALS = (
    *("lmetric", "least_connections", "power_of_two", "prefix_affinity", "session_affinity"),
    *("prefix_cache", "cache_aware", "llm_d", "sticky_until_saturated", "round_robin"),
)
FIGURES = (("ttft_ms", "mean"), ("e2e_ms", "mean"), ("ttft_ms", "p99"))
FLOOR = {"mean": 0.03, "p99": 0.06}
UNEQUAL = (1.0, 1.0, 0.5, 0.25)
# Kind, engine → requests a second at which dynamo_cost's mean TTFT is three times that of an idle
# fleet (within 6 %): the knee, by bisection.
KNEES = {
    ("chat", "dynamo-polynomial"): 267.0,
    ("agentic", "dynamo-polynomial"): 5.05,
    ("documents", "dynamo-polynomial"): 40.8,
    ("chat", "qwen3-32b-h100-tp2"): 65.2,
    ("agentic", "qwen3-32b-h100-tp2"): 2.43,
    ("documents", "qwen3-32b-h100-tp2"): 19.6,
}
# The same of whichever weight is best at that load (within 1 %): where the hardest rival breaks.
# Agents wait for their answers: at 419 a second all sessions start at once.
BEST_KNEES = {
    ("documents", "dynamo-polynomial"): 82.5,
    ("documents", "qwen3-32b-h100-tp2"): 18.7,
    ("documents", "llama-3.1-70b-h100-tp4"): 26.3,
    ("documents", "llama-3.1-8b-h100-tp1"): 38.8,
    ("agentic", "dynamo-polynomial"): 419.0,
    ("agentic", "qwen3-32b-h100-tp2"): 5.29,
    ("agentic", "llama-3.1-70b-h100-tp4"): 7.98,
    ("agentic", "llama-3.1-8b-h100-tp1"): 9.83,
}
# Kind → endpoints, requests: chats are short, so they need fewer engines and more requests.
SIZES = {"chat": (4, 8000), "agentic": (8, 4000), "documents": (8, 4000)}
LOADS = (0.6, 1.0, 1.3)

Runs = dict[str, list[ReplayResult]]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A trace on a fleet."""

    name: str
    trace: Trace
    endpoints: int = 8
    speedup: float = 1.0
    engine: str = "dynamo-polynomial"
    block: int = 64
    kv_tokens: int | None = None
    speeds: tuple[float, ...] | None = None

    def replay(self, strategy: str, params: dict[str, float], seed: int) -> ReplayResult:
        """One strategy, one seed."""
        return run(
            self.trace,
            strategy=strategy,
            params=params,
            seed=seed,
            endpoints=self.endpoints,
            speedup=self.speedup,
            engine=self.engine,
            block_size=self.block,
            kv_blocks=(self.kv_tokens or PROFILES[self.engine]) // self.block,
            speeds=self.speeds,
        )


def conversation(path: str) -> Iterator[Cell]:
    """The seven fleets for which reference results are published."""
    trace = read_trace(path)
    for endpoints in (4, 8, 16):
        yield Cell(name=f"conversation x1, {endpoints}", trace=trace, endpoints=endpoints)
    for speedup, endpoints in ((3, 8), (4, 8), (4.5, 8), (8, 16)):
        yield Cell(
            name=f"conversation x{speedup}, {endpoints}",
            trace=trace,
            endpoints=endpoints,
            speedup=speedup,
            block=512,
            kv_tokens=458_752,
        )


def generated() -> Iterator[Cell]:
    """Three kinds of traffic below, at and past the knee, and at half of it on unequal engines."""
    for (kind, engine), knee in KNEES.items():
        endpoints, requests = SIZES[kind]
        for load in (*LOADS, 0.5):
            trace = generate(kind, requests=requests, rate=load * knee, seed=1)
            speeds = tuple(UNEQUAL[at % 4] for at in range(endpoints)) if load == 0.5 else None
            name = f"{kind} {load:g}{' unequal' if speeds else ''}, {engine}"
            yield Cell(name=name, trace=trace, endpoints=endpoints, engine=engine, speeds=speeds)


def at_best_knees() -> Iterator[Cell]:
    """Documents and agents where dynamo_cost breaks at its best weight, and 5 % beyond."""
    for (kind, engine), knee in BEST_KNEES.items():
        endpoints, requests = SIZES[kind]
        for load in (1.0, 1.05):
            trace = generate(kind, requests=requests, rate=load * knee, seed=1)
            name = f"{kind} {load:g} of the best weight's knee, {engine}"
            yield Cell(name=name, trace=trace, endpoints=endpoints, engine=engine)


def replay_all(cell: Cell, seeds: int) -> Runs:
    """Label → one run a seed."""
    contenders: dict[str, tuple[str, dict[str, float]]]
    contenders = {"expected_latency": ("expected_latency", {})}
    contenders |= {f"dynamo_cost {w}": ("dynamo_cost", {"prefill_weight": w}) for w in WEIGHTS}
    contenders |= {word: (word, {}) for word in RIVALS}
    return {
        label: [cell.replay(word, params, seed) for seed in range(seeds)]
        for label, (word, params) in contenders.items()
    }


def value(runs: list[ReplayResult], figure: str, part: str) -> float:
    """The figure's mean over seeds."""
    return fmean(getattr(getattr(run, figure), part) for run in runs)


def best_weight(found: Runs, figure: str, part: str) -> list[ReplayResult]:
    """The runs of the weight that is best in this figure."""
    return min((found[f"dynamo_cost {w}"] for w in WEIGHTS), key=lambda r: value(r, figure, part))


def worse(found: Runs) -> Iterator[str]:
    """Whom `expected_latency` is behind by more than noise, and in what."""
    ours = found["expected_latency"]
    for label, theirs in found.items():
        for figure, part in FIGURES:
            gap = difference(ours, theirs, figure, part)
            if gap.ratio - 1 > max(gap.half_width, FLOOR[part]):
                yield f"{label} {figure.removesuffix('_ms')} {part} {gap.ratio:.2f}"


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    ratios: dict[str, list[list[float]]] = {}
    print("| cell | ours: mean TTFT, E2E, p99 TTFT | behind by more than noise |\n|---|---|---|")
    cells = (*conversation(args.trace), *generated()) if args.trace else at_best_knees()
    for cell in cells:
        if not fnmatch.fnmatch(cell.name, args.only):
            continue
        found = replay_all(cell, args.seeds)
        for label, runs in found.items():
            row = [difference(runs, best_weight(found, *f), *f).ratio for f in FIGURES]
            ratios.setdefault(label, []).append(row)
        ours = ", ".join(f"{ratio:.2f}" for ratio in ratios["expected_latency"][-1])
        print(f"| {cell.name} | {ours} | {'; '.join(worse(found)) or 'nobody'} |", flush=True)
    print("\n| strategy | mean TTFT: mean, worst | mean E2E | p99 TTFT |\n|---|---|---|---|")
    for label, rows in ratios.items():
        columns = [f"{fmean(column):.2f}, {max(column):.2f}" for column in zip(*rows, strict=True)]
        print(f"| {label} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
