"""What each parameter does to the objective: its runs by value, and the share of the variance that it explains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.ranking.comparison import Comparison
from experiments.ranking.report.charts import MISSING, VALUES, finite
from experiments.ranking.report.scales import Scale, natural, number

BINS = 5  # groups that a number with many values is cut into


@dataclass(frozen=True)
class Point:
    """A finished run: the number of its config, its objective, its parameters."""

    config: int
    objective: float
    parameters: Mapping[str, str]


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
        share: Of the variance between runs that it explains; None where no two runs share a value.
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
    points = [
        Point(config, objective, run.parameters)
        for config, standing in enumerate(comparison.standings)
        for run in standing.runs
        for objective in finite([run])
    ]
    found = [_effect(key, points, scale, comparison.lower_is_better) for key in comparison.parameters]
    return sorted((e for e in found if e), key=lambda e: -1.0 if e.share is None else e.share, reverse=True)


def _effect(key: str, points: Sequence[Point], scale: Scale, lower_is_better: bool) -> Effect | None:
    grouped = _grouped(key, points)
    if len(grouped) < 2:
        return None
    share = eta_squared([[point.objective for point in members] for members in grouped.values()])
    chance = (len(grouped) - 1) / (len(points) - 1)  # of the beta distribution that it has where all are alike
    groups = []
    for label, members in grouped.items():
        mean = fmean(point.objective for point in members)
        groups.append(Group(label, mean, scale(mean), [(point.config, scale(point.objective)) for point in members]))
    hidden = max(len(groups) - VALUES, 0)
    if hidden:
        groups = sorted(groups, key=lambda group: group.mean, reverse=not lower_is_better)[:VALUES]
    return Effect(key, share if len(grouped) < len(points) else None, chance, groups, hidden)


def _grouped(key: str, points: Sequence[Point]) -> Mapping[str, Sequence[Point]]:
    """The runs by value; by ranges that hold equally many of them, where a number has many values."""
    by_value: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: natural(point.parameters.get(key, MISSING))):
        by_value.setdefault(point.parameters.get(key, MISSING), []).append(point)
    if len(by_value) <= 2 * BINS or key == "seed" or any(number(value) is None for value in by_value):
        return by_value
    ranges: list[list[str]] = [[] for _ in range(BINS)]
    before = 0
    for value, members in by_value.items():
        ranges[before * BINS // len(points)].append(value)
        before += len(members)
    filled = [values for values in ranges if values]
    names = _names([(float(values[0]), float(values[-1])) for values in filled])
    return {
        name: [point for value in values for point in by_value[value]]
        for name, values in zip(names, filled, strict=True)
    }


def _names(ranges: Sequence[tuple[float, float]]) -> list[str]:
    """Ranges of numbers, with as few digits, but two at least, as tell their ends apart."""
    ends = {end for one in ranges for end in one}
    digits = next((n for n in range(2, 17) if len({f"{end:.{n}g}" for end in ends}) == len(ends)), 17)
    return [f"{low:.{digits}g} to {high:.{digits}g}" if low < high else f"{low:.{digits}g}" for low, high in ranges]
