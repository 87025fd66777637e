"""bench/results.svg: throughput and latency against the number of connections."""

from collections.abc import Sequence
from pathlib import Path

from bench.measures import Point
from bench.programs import HERE

CHART = HERE / "results.svg"
COLOURS = ("#888888", "#0b6e99")


def draw(curves: Sequence[tuple[str, Sequence[Point]]], to: Path = CHART) -> None:
    """Replaces the chart: two panels with a line for each of `curves`."""
    # Importing it takes a second, and only a whole run draws.
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # Text stays text, and equal figures make an equal file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mooring", "font.size": 9})
    figure, (rate, wait) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for (name, points), colour in zip(curves, COLOURS, strict=False):
        at = [point.connections for point in points]
        style = {"color": colour, "marker": "o", "markersize": 3.5, "label": name}
        rate.plot(at, [point.per_s for point in points], **style)
        wait.plot(at, [point.p99_s * 1e3 for point in points], **style)
    ticks = sorted({point.connections for _, points in curves for point in points})
    for axes in (rate, wait):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xlabel("connections")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    rate.set_title("devices registered per second", loc="left", fontsize=10)
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter("{x:,.0f}")
    wait.set_title("99th percentile of the wait, ms", loc="left", fontsize=10)
    wait.set_yscale("log")
    wait.yaxis.set_major_formatter("{x:,g}")
    rate.legend(frameon=False, fontsize=8, loc="best")
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)
