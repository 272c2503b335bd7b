"""What each parameter does to the objective: its runs by value, and the share of the variance that it explains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from experiments.ranking.comparison import Comparison
from experiments.ranking.frame import PARAMS, section
from experiments.ranking.report.charts import MISSING, VALUES
from experiments.ranking.report.scales import Scale, natural, number
from experiments.system.terminal import short_numbers

if TYPE_CHECKING:
    import pandas as pd

BINS = 5  # groups that a number with many values is cut into


@dataclass(frozen=True)
class Group:
    """The runs that have one value of a parameter: the mean of their objectives; where each is, with its config."""

    label: str
    mean: float
    at: float
    dots: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Effect:
    """What a parameter does.

    Attributes:
        share: Of the variance between configs that it explains, or of that between runs for the seed; None where no two
            share a value.
        chance: The share that a parameter without any effect would explain on average.
        hidden: How many more values there are; they did worse than those in groups.
    """

    name: str
    share: float | None
    chance: float
    groups: Sequence[Group]
    hidden: int


def eta_squared(groups: Sequence[Sequence[float]]) -> float:
    """The sum of squares between groups, as a share of the total: the correlation ratio (Fisher 1925).

    0 where the values do not differ at all.
    """
    mean = fmean([value for group in groups for value in group])
    total = sum((value - mean) ** 2 for group in groups for value in group)
    between = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups)
    return between / total if total else 0.0


def effects(comparison: Comparison, scale: Scale) -> list[Effect]:
    """Every parameter in which the finished runs differ; the one that explains most first."""
    values = section(comparison.runs, PARAMS).reindex(columns=comparison.parameters).fillna(MISSING)
    found = [_effect(comparison, values[key], scale) for key in values if values[key].nunique() > 1]
    return sorted(found, key=lambda effect: -1.0 if effect.share is None else effect.share, reverse=True)


def _effect(comparison: Comparison, values: "pd.Series[str]", scale: Scale) -> Effect:
    """Group the runs by their values of a parameter."""
    labels = _labels(values.tolist(), in_ranges=values.name != "seed")
    runs = comparison.runs.loc[sorted(values.index, key=lambda run: natural(values[run]))]
    by_label = runs.groupby(values[runs.index].map(labels), sort=False)
    # Runs of one config are no evidence of their own for what its parameters do.
    unit = "run_id" if values.name == "seed" else "rank"
    objectives = [group.groupby(unit)["objective"].mean().tolist() for _, group in by_label]
    number = runs[unit].nunique()
    share = eta_squared(objectives) if len(objectives) < number else None
    chance = (len(objectives) - 1) / (number - 1) if number > 1 else 0.0  # mean of its beta distribution by chance
    groups = []
    for label, group in by_label:
        mean, dots = fmean(group["objective"]), group["objective"].map(scale)
        name = short_numbers(label) if label in labels else label  # a value, or a range
        groups.append(Group(name, mean, scale(mean), list(zip(group["rank"] - 1, dots, strict=True))))
    hidden = max(len(groups) - VALUES, 0)
    if hidden:
        better = not comparison.lower_is_better
        groups = sorted(groups, key=lambda group: group.mean, reverse=better)[:VALUES]
    return Effect(str(values.name), share, chance, groups, hidden)


def _labels(values: Sequence[str], in_ranges: bool) -> Mapping[str, str]:
    """The label of each value: itself; for a number with many values, one of ranges with equally many runs."""
    counts = Counter(sorted(values, key=natural))
    if len(counts) <= 2 * BINS or not in_ranges or any(number(value) is None for value in counts):
        return {value: value for value in counts}
    ranges: list[list[str]] = [[] for _ in range(BINS)]
    before = 0
    for value, count in counts.items():
        ranges[before * BINS // len(values)].append(value)
        before += count
    filled = [members for members in ranges if members]
    names = _names([(float(members[0]), float(members[-1])) for members in filled])
    return {value: name for name, members in zip(names, filled, strict=True) for value in members}


def _names(ranges: Sequence[tuple[float, float]]) -> list[str]:
    """Write ranges of numbers with as few digits as tell their ends apart, but at least two."""
    ends = {end for one in ranges for end in one}
    digits = next((n for n in range(2, 17) if len({f"{end:.{n}g}" for end in ends}) == len(ends)), 17)
    return [f"{low:.{digits}g} to {high:.{digits}g}" if low < high else f"{low:.{digits}g}" for low, high in ranges]
