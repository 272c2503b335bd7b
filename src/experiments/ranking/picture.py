"""The picture of a sweep."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.config.problems import visible

COMPARED = 40  # runs that it has room for


def compare_runs(
    names: Sequence[str], objectives: Sequence[float], curves: Sequence[Sequence[float]], ranked_by: str, metric: str
) -> Figure:
    """Runs of a sweep, the best first: the curves of a metric by epoch, and the objectives as a ranking."""
    height = max(3.8, 1.1 + 0.26 * len(names))
    figure = Figure(figsize=(13, height))
    shades = colormaps["viridis"](np.linspace(0.05, 0.9, len(names)))
    left = figure.add_axes((0.06, 0.6 / height, 0.4, 1 - 1.1 / height))
    for shade, curve in reversed(list(zip(shades, curves, strict=True))):  # the best on top
        left.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, color=shade)
    left.set(title=f"{metric.replace('_', ' ')} by epoch", xlabel="epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    right = figure.add_axes((0.72, 0.6 / height, 0.26, 1 - 1.1 / height))
    places = range(len(names))
    right.scatter(objectives, places, color=shades, zorder=3)
    right.set(title=ranked_by.replace("_", " "), ylim=(len(names) - 0.5, -0.5))
    right.set_yticks(places, [name if len(name) <= 42 else f"{name[:41]}…" for name in map(visible, names)], fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure
