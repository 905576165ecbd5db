"""Every strategy in the failure modes of routing: a Markdown table, means over three seeds.

A script: `python benches/replay_modes.py [MODE…]`. The modes are those of the tests.
"""

import sys
from pathlib import Path
from statistics import fmean

from routecore import ROUTERS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from replay.failure_modes import MODES

# They do not route whole requests, or only as they are told to.
LEFT_OUT = ("random", "weighted_score", "prefill_decode")


def main() -> None:
    """Prints a table for each mode."""
    strategies = [word for word in ROUTERS if word not in LEFT_OUT]
    for mode in sys.argv[1:] or MODES:
        head = False
        for strategy in strategies:
            runs = [MODES[mode](strategy, seed) for seed in range(3)]
            if not head:
                print(f"\n| {mode} | {' | '.join(runs[0])} |\n|---|{'---|' * len(runs[0])}")
                head = True
            figures = (fmean(run[name] for run in runs) for name in runs[0])
            print(f"| {strategy} | {' | '.join(f'{x:.3g}' for x in figures)} |", flush=True)


if __name__ == "__main__":
    main()
