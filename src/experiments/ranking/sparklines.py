"""Curves as a line of text."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean

from experiments.ranking.comparison import Comparison, curve_of

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 12  # characters


def sparklines(comparison: Comparison) -> dict[int, str]:
    """The curves of the ranked metric, by rank: means over the seeds, all on one scale.

    Empty if no run recorded two epochs.
    """
    metric = curve_of(comparison.ranked_by)
    by_rank = comparison.runs["curves"].groupby(comparison.runs["rank"])
    means = {}
    for rank, recorded in by_rank:
        epochs = zip_longest(*(curves.get(metric, ()) for curves in recorded))  # some curves end earlier
        means[rank] = [fmean(value for value in values if value is not None) for values in epochs]
    if max(map(len, means.values()), default=0) < 2:
        return {}
    values = [value for curve in means.values() for value in curve if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    return {rank: sparkline(curve, low, high) for rank, curve in means.items()}


def sparkline(curve: Sequence[float], low: float, high: float, width: int = CURVE_WIDTH) -> str:
    """Draw a curve with a block a value; where there are more than `width`, with the means of equal parts.

    Args:
        curve: The values; those that are not finite leave a gap.
        low: What the lowest block stands for.
        high: What the highest block stands for.
        width: In characters.
    """
    count = min(len(curve), width)
    parts = [curve[place * len(curve) // count : (place + 1) * len(curve) // count] for place in range(count)]
    line = ""
    for part in parts:
        finite = [value for value in part if math.isfinite(value)]
        share = (fmean(finite) - low) / (high - low) if finite and high > low else 0.5
        line += BARS[min(max(round(share * (len(BARS) - 1)), 0), len(BARS) - 1)] if finite else " "
    return line
