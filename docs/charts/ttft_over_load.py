"""Draws the chart of the README: mean TTFT over load, as SVG for light and dark pages.

    python docs/charts/ttft_over_load.py       # from the repository's root; needs matplotlib

Replays requests about shared documents on 8 modelled engines, three seeds a point.
"""

from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "routecore"
matplotlib.rcParams["font.family"] = "sans-serif"

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402
from routecore.replay import generate, run  # noqa: E402

ENGINE = "qwen3-32b-h100-tp2"
LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
RATE = 8.0
"""Requests a second at load 1."""
SEEDS = 3
STRATEGIES = {
    "round_robin": "#8a8f98",
    "least_connections": "#b8862d",
    "dynamo_cost": "#4c78a8",
    "cache_aware": "#4f9d69",
    "expected_latency": "#d1495b",
}
TONES = {"light": ("#24292f", "#d8dee4"), "dark": ("#e6edf3", "#30363d")}
FOLDER = Path(__file__).parent.parent / "images"


def measure() -> dict[str, list[float]]:
    """Mean TTFT in ms of each strategy at each load."""
    traces = [generate("documents", rate=RATE, seed=seed) for seed in range(SEEDS)]
    return {
        name: [
            fmean(
                run(trace, strategy=name, engine=ENGINE, speedup=load, seed=seed).ttft_ms.mean
                for seed, trace in enumerate(traces)
            )
            for load in LOADS
        ]
        for name in STRATEGIES
    }


def draw(found: dict[str, list[float]], tone: str) -> None:
    """Write the chart for pages of that tone."""
    ink, grid = TONES[tone]
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    rates = [RATE * load for load in LOADS]
    for name, times in found.items():
        bold = name == "expected_latency"
        axes.plot(rates, times, color=STRATEGIES[name], linewidth=2.6 if bold else 1.6, marker="o",
                  markersize=4)  # fmt: skip
        axes.annotate(
            name,
            (rates[-1], times[-1]),
            (
                6,
                {
                    "least_connections": 7,
                    "round_robin": -4,
                    "cache_aware": 3,
                    "expected_latency": -9,
                }.get(name, -3),
            ),
            textcoords="offset points",
            color=STRATEGIES[name],
            fontweight="bold" if bold else "normal",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda ms, _: f"{ms:g} ms" if ms < 1e3 else f"{ms / 1e3:g} s")
    )
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("requests per second on 8 engines", color=ink)
    axes.set_title("Mean time to first token (log scale)", color=ink, loc="left", fontsize=11)
    axes.set_xlim(0, rates[-1] * 1.28)
    axes.tick_params(colors=ink, which="both")
    axes.grid(axis="y", color=grid, linewidth=0.7)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(grid)
    path = FOLDER / f"ttft-over-load-{tone}.svg"
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


if __name__ == "__main__":
    figures = measure()
    for each in TONES:
        draw(figures, each)
    for strategy, means in figures.items():
        print(f"{strategy:20}", *(f"{mean:10,.0f}" for mean in means))
