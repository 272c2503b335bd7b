"""What the report draws, as coordinates and labels in the units of its SVGs. No HTML.

A config goes by its number: its place in the ranking, from 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from experiments.config.measures import base_name, mode_of
from experiments.ranking.comparison import Comparison, curve_of
from experiments.ranking.frame import PARAMS
from experiments.ranking.report.scales import Scale, Tick, apart, is_wide, natural, number, scale_of
from experiments.system.terminal import short_numbers

MISSING = "\N{EN DASH}"
PANELS = 4  # metrics whose curves are shown
POINTS = 150  # epochs that a curve has room for
VALUES = 12  # values of a parameter that an axis or a strip has room for


@dataclass(frozen=True)
class Whisker:
    """A config in the ranking: its mean, its runs, and the ends of its interval (None for a single run).

    `cut` tells whether the ends lie beyond the axis.
    """

    at: float
    dots: Sequence[float]
    interval: tuple[float, float] | None
    cut: tuple[bool, bool]


Line = tuple[int, str]
"""The number of a config, and the `d` of an SVG path: a run's curve, or the config's line."""


@dataclass(frozen=True)
class Panel:
    """The curves of one metric; where that of the best ends; and how many epochs a point stands for."""

    metric: str
    log: bool
    x: Sequence[Tick]
    y: Sequence[Tick]
    lines: Sequence[Line]
    end: tuple[float, float] | None
    every: int


@dataclass(frozen=True)
class Axis:
    """One of the parallel axes."""

    name: str
    at: float
    ticks: Sequence[Tick]
    log: bool = False


def whiskers(comparison: Comparison, start: float, end: float) -> tuple[Scale, list[Whisker]]:
    """The ranking on one axis, which intervals make longer by half at most on either side."""
    configs, objective = comparison.configs, comparison.runs["objective"]
    runs = scale_of(objective, 0, 1)
    more = (runs.high - runs.low) / 2
    low = max(min([runs.low, *configs["low"].dropna()]), runs.low - more)
    high = min(max([runs.high, *configs["high"].dropna()]), runs.high + more)
    scale = Scale(low, high, start, end)
    dots = objective.map(scale).groupby(comparison.runs["rank"]).agg(list)
    found = []
    for rank, mean, low, high in configs[["mean", "low", "high"]].itertuples(name=None):
        interval = None if math.isnan(low) else (scale(low), scale(high))
        found.append(Whisker(scale(mean), dots[rank], interval, (low < scale.low, high > scale.high)))
    return scale, found


def curve_metrics(comparison: Comparison) -> list[str]:
    """The metrics whose curves are shown: what the ranking is by, then the losses, then others."""
    recorded = comparison.runs["curves"]
    known = {name for curves in recorded for name, curve in curves.items() if any(map(math.isfinite, curve))}
    ranked = curve_of(comparison.ranked_by)
    partner = ranked.removeprefix("val_") if ranked.startswith("val_") else f"val_{ranked}"
    wanted = dict.fromkeys([ranked, "val_loss", "loss", partner, *sorted(known - {"learning_rate"})])
    return [name for name in wanted if name in known][:PANELS]


def panel(comparison: Comparison, metric: str, width: float, height: float) -> Panel:
    """The curves of a metric, within the given size, the best one last, on top."""
    recorded = zip(comparison.runs["rank"] - 1, comparison.runs["curves"], strict=True)
    curves = [(config, by_metric.get(metric, ())) for config, by_metric in recorded]
    may_be_log = mode_of(metric, [base_name(metric)]) == "min"
    y = scale_of([value for _, curve in curves for value in curve], height, 0, may_be_log)
    y = replace(y, beyond=2)  # lines that leave the frame go on outside, and are clipped
    epochs = max(len(curve) for _, curve in curves)
    x = Scale(1, epochs, 0, width) if epochs > 1 else Scale(0.5, 1.5, 0, width)
    every = math.ceil(epochs / POINTS)
    lines = [(config, path) for config, curve in reversed(curves) if (path := _curve(curve, x, y, every))]
    best = next((curve for config, curve in curves if config == 0 and curve and math.isfinite(curve[-1])), None)
    end = (x(len(best)), y(best[-1])) if best else None
    return Panel(metric, y.log, x.ticks(5, whole=True), y.ticks(5), lines, end, every)


def _curve(curve: Sequence[float], x: Scale, y: Scale, every: int) -> str:
    """A path through the epochs, broken where a value is not a number; a lone point is a line of no length."""
    path, joined = "", False
    for epoch, value in enumerate(curve, start=1):
        if (epoch - 1) % every and epoch < len(curve):
            continue
        if math.isfinite(value):
            place = f"{x(epoch):g} {y(value):g}"
            path += f"L{place}" if joined else f"M{place}h0"
        joined = math.isfinite(value)
    return path


def parallel(comparison: Comparison, start: float, gap: float, height: float) -> tuple[list[Axis], list[Line]]:
    """An axis for every setting in which configs differ, then the objective, the better the higher. A line a config."""
    configs = comparison.configs
    columns = {key: configs[PARAMS + key].tolist() for key in comparison.settings}
    axes: list[Axis] = []
    places: list[Sequence[float]] = []
    for key, column in columns.items():
        if len(set(column)) > 1:
            heights, ticks, log = _parallel_axis(column, height)
            axes.append(Axis(key, start + len(axes) * gap, ticks, log))
            places.append(heights)
    if not axes:
        return [], []
    objective = scale_of(configs["mean"], *((0.0, height) if comparison.lower_is_better else (height, 0.0)))
    axes.append(Axis(comparison.ranked_by, start + len(axes) * gap, objective.ticks(5)))
    places.append([objective(mean) for mean in configs["mean"]])
    return axes, [(config, _bend(axes, heights)) for config, heights in enumerate(zip(*places, strict=True))][::-1]


def _parallel_axis(column: Sequence[str], height: float) -> tuple[list[float], list[Tick], bool]:
    """Place the value of each config: numbers to scale; others evenly, also 0 among numbers of a logarithmic axis."""
    values = sorted(set(column), key=natural)
    numbers = [value for value in map(number, column) if value is not None]
    log = is_wide(numbers)
    if len(numbers) == len(column) and max(numbers) > min(numbers) and (min(numbers) > 0 or not log):
        scale = Scale(min(numbers), max(numbers), height, 0, log)
        few = len(values) <= VALUES
        ticks = [Tick(scale(float(value)), short_numbers(value)) for value in values] if few else scale.ticks(5)
        return [scale(value) for value in numbers], apart(ticks), log
    step = height / len(values)
    centre = {value: height - (place + 0.5) * step for place, value in enumerate(values)}
    side = min(step * 0.5, 36) / len(column)  # lines that share a value lie side by side, the best on top
    heights = [round(centre[value] + (n - len(column) / 2) * side, 1) for n, value in enumerate(column)]
    return heights, apart([Tick(round(place, 1), short_numbers(value)) for value, place in centre.items()]), False


def _bend(axes: Sequence[Axis], heights: Sequence[float]) -> str:
    path = f"M{axes[0].at:g} {heights[0]:g}"
    for (before, low), (after, high) in pairwise((axis.at, place) for axis, place in zip(axes, heights, strict=True)):
        path += f"C{(before + after) / 2:g} {low:g} {(before + after) / 2:g} {high:g} {after:g} {high:g}"
    return path


def heat(matrix: Sequence[Sequence[int]]) -> list[list[tuple[int, float]]]:
    """Colour a confusion matrix by shares of its rows: right guesses by their share, mistakes relative to the largest.

    Mistakes use the square root of that ratio, as they differ by orders of magnitude.

    Returns:
        The count of each cell, and the strength of its colour from 0 to 1, row by row.
    """
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(counts), dtype=bool)
    worst = shares[~right].max(initial=0.0) or 1.0
    colours = np.where(right, shares, np.sqrt(shares / worst))
    rows = zip(matrix, colours.tolist(), strict=True)
    return [[(count, round(colour, 2)) for count, colour in zip(*row, strict=True)] for row in rows]
