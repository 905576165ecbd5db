"""Every strategy in the failure modes of routing: a Markdown table, means over three seeds.

A script: `python benches/replay_modes.py`. The modes are those of the tests, which say what each
does and what `expected_latency` must reach; docs/strategies.md explains the columns.
"""

import sys
from pathlib import Path
from statistics import fmean

from routecore import ROUTERS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from replay.failure_modes import MODES

# They do not route whole requests, or only as configured.
LEFT_OUT = ("random", "weighted_score", "prefill_decode")
# Heading, mode, figure.
COLUMNS = (
    ("hot: max/mean", "hot prefix", "max/mean in flight"),
    ("hot: p99", "hot prefix", "p99 against without"),
    ("4 routers: p99 ms", "stale 5 s, 4 routers", "p99"),
    ("share", "stale 5 s, 4 routers", "max share"),
    ("cold: p99", "cold start", "p99 against without"),
    ("long: p90 ms", "long prompts", "p90 of short"),
    ("half 2x slower", "half 2x slower", "p99 against oracle"),
    ("half 4x slower", "half 4x slower", "p99 against oracle"),
    ("restart", "failure", "served after"),
    ("killed: failed %", "killed", "failed"),
    ("sick: failed %", "sick", "failed"),
    ("share after", "sick", "share after"),
    ("set 0.5", "working set 0.5", "good requests a second"),
    ("set 1", "working set 1", "good requests a second"),
    ("set 2", "working set 2", "good requests a second"),
    ("agents: flips", "agents", "flips a session"),
    ("share", "agents", "max share"),
)


def short(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Replays and prints."""
    print(f"| strategy | {' | '.join(head for head, _, _ in COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for strategy in ROUTERS:
        if strategy in LEFT_OUT:
            continue
        asked = {mode for _, mode, _ in COLUMNS}
        found = {mode: [MODES[mode](strategy, seed) for seed in range(3)] for mode in asked}
        figures = (
            fmean(run[name] for run in found[mode]) * (100 if head.endswith("%") else 1)
            for head, mode, name in COLUMNS
        )
        print(f"| `{strategy}` | {' | '.join(map(short, figures))} |", flush=True)


if __name__ == "__main__":
    main()
