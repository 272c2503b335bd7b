"""The picture of a sweep."""

import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.config.problems import visible
from experiments.system.terminal import short_numbers

COMPARED = 40  # runs that it has room for
WIDTH = 42  # characters of a line of a run's name


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
    left.set(title=f"{metric} by epoch", xlabel="epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    right = figure.add_axes((0.72, 0.6 / height, 0.26, 1 - 1.1 / height))
    places = range(len(names))
    right.scatter(objectives, places, color=shades, zorder=3)
    right.set(title=ranked_by, ylim=(len(names) - 0.5, -0.5))
    labels = list(map(_label, names))
    right.set_yticks(places, labels, fontsize=7 if any("\n" in label for label in labels) else 8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _label(name: str) -> str:
    """A run's name on two lines at most, with only the last part of each key: ``learning_rate=0.1``."""
    short = short_numbers(re.sub(r"(?<!\S)[\w.]+\.(?=\w+=)", "", visible(name)))
    return "\n".join(textwrap.wrap(short, WIDTH, max_lines=2, placeholder=" …", break_on_hyphens=False))
