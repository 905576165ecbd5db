"""What routers side by side lose, and what KV events give back: hit rate and mean TTFT.

A script: `python benches/replay_routers.py TRACE [--seeds 5]`, TRACE being the conversation trace
of Mooncake. Prints the Markdown table of docs/kv-events.md.
"""

import argparse
from statistics import fmean

from routecore.replay import Trace, generate, read_trace, run

STRATEGIES = ("expected_latency", "lmetric", "dynamo_cost", "prefix_cache")
ENGINES = 16
# What is known: events after this delay, or the router's own choices.
BY = {"history": None, "events": 50.0}


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    mooncake = {"speedup": 8.0, "block_size": 512, "kv_blocks": 896}
    traces: dict[str, tuple[Trace, dict[str, float]]] = {
        "Mooncake conversation ×8": (read_trace(args.trace), mooncake),
        "`agentic`": (generate("agentic", requests=4000, rate=8, seed=1), {}),
        "`chat`": (generate("chat", requests=8000, rate=100, seed=1), {}),
    }
    print("| trace | strategy | knows by | 1 router | 2 routers | 4 routers |")
    print("|---|---|---|---|---|---|")
    for name, (trace, settings) in traces.items():
        for strategy in STRATEGIES:
            for word, delay in BY.items():
                row = []
                for routers in (1, 2, 4):
                    found = [
                        run(
                            trace,
                            strategy=strategy,
                            seed=seed,
                            endpoints=ENGINES,
                            routers=routers,
                            kv_event_delay_ms=delay,
                            **settings,  # type: ignore[arg-type]
                        )
                        for seed in range(args.seeds)
                    ]
                    hits = fmean(each.token_hit_rate for each in found)
                    ttft = fmean(each.ttft_ms.mean for each in found)
                    row.append(f"{100 * hits:.1f} % / {ttft:,.0f}")
                print(f"| {name} | `{strategy}` | {word} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
