"""The space of a search: the keys that it chooses values for, and what each may be."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property, partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial


@dataclass(frozen=True)
class Dimension:
    """A key that a search chooses the value of.

    Attributes:
        key: As in an override, such as ``optimizer.momentum``.
        name: In the study: with the choices that the key depends on, such as ``optimizer=sgd:optimizer.momentum``.
        text: The values, as they were typed.
        distribution: The same, as Optuna has it; choices are texts.
        branches: Keys that a choice brings along, by its text.
        is_fixed: It has one value, which is not searched.
    """

    key: str
    name: str
    text: str
    distribution: BaseDistribution
    branches: Mapping[str, Sequence["Dimension"]] = field(default_factory=dict)
    is_fixed: bool = False

    @property
    def ends(self) -> list[Any]:
        """All choices, or the lowest and the highest number."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return [self.distribution.low, self.distribution.high]

    @property
    def count(self) -> int | None:
        """Number of values; None where there are infinitely many."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return len(choices)
            case IntDistribution(low=low, high=high, step=step):
                return (high - low) // step + 1
            case FloatDistribution(low=low, high=high, step=step) if low == high or step:
                return round((high - low) / step) + 1 if step else 1
        return None

    @property
    def values(self) -> list[Any]:
        """All values, of which there are finitely many."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step):
                return list(range(low, high + 1, step))
            case FloatDistribution(low=low, step=step):
                return [exact(low, step or 0.0, number) for number in range(self.count or 0)]
        raise AssertionError(self.distribution)

    def has(self, value: Any) -> bool:
        """Whether a value is one of these, or between their ends."""
        if isinstance(self.distribution, CategoricalDistribution):
            return value in self.distribution.choices
        low, high = self.ends
        return isinstance(value, int | float) and low <= value <= high

    def suggest(self, trial: Trial) -> Any:
        """Have a trial choose a value."""
        if isinstance(self.distribution, CategoricalDistribution):
            return trial.suggest_categorical(self.name, self.distribution.choices)
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        suggest: Any = trial.suggest_int if isinstance(self.distribution, IntDistribution) else trial.suggest_float
        low, high = self.ends
        return suggest(self.name, low, high, step=self.distribution.step, log=self.distribution.log)


@dataclass(frozen=True)
class Space:
    """What a trial's overrides are drawn from.

    Attributes:
        dimensions: The keys to choose values for.
        fixed: Overrides of all trials.
    """

    dimensions: Sequence[Dimension]
    fixed: Sequence[str]

    def draw(self, trial: Trial) -> list[str]:
        """Have a trial choose; return its overrides."""
        return self._overrides(lambda dimension: dimension.suggest(trial))

    def of(self, chosen: Mapping[str, Any]) -> list[str]:
        """The overrides of values that were chosen before, by the names of their dimensions."""
        return self._overrides(lambda dimension: chosen[dimension.name])

    def corners(self) -> list[list[str]]:
        """Overrides with each key, one at a time, at all of its ends; the other keys are at their first ones."""
        found = [{}, *_one_at_a_time(self.dimensions, {})]
        corners = [self._overrides(partial(_end, ends)) for ends in found]
        return [list(corner) for corner in dict.fromkeys(map(tuple, corners))]

    def all(self) -> Iterator[Dimension]:
        """The dimensions, with those of all branches."""
        yield from _with_branches(self.dimensions)

    @cached_property
    def size(self) -> int | None:
        """Number of points; None where there are infinitely many."""
        return _size(self.dimensions)

    def _overrides(self, value_of: Callable[[Dimension], Any]) -> list[str]:
        return [*self.fixed, *_chosen(self.dimensions, value_of)]


def exact(start: Any, step: Any, number: int) -> Any:
    """A value of a range, as a person would write it: three steps of 0.15 are 0.45."""
    value = Decimal(str(start)) + number * Decimal(str(step))
    return int(value) if isinstance(start, int) and isinstance(step, int) else float(value)


def _end(ends: Mapping[str, Any], dimension: Dimension) -> Any:
    return ends.get(dimension.name, dimension.ends[0])


def _chosen(dimensions: Sequence[Dimension], value_of: Callable[[Dimension], Any]) -> Iterator[str]:
    for dimension in dimensions:
        value = value_of(dimension)
        yield f"{dimension.key}={value if isinstance(value, str) else repr(value)}"
        yield from _chosen(dimension.branches.get(value, ()), value_of)


def _one_at_a_time(dimensions: Sequence[Dimension], above: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for dimension in dimensions:
        for end in dimension.ends:
            yield (ends := {**above, dimension.name: end})
            yield from _one_at_a_time(dimension.branches.get(end, ()), ends)


def _with_branches(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    for dimension in dimensions:
        yield dimension
        for branch in dimension.branches.values():
            yield from _with_branches(branch)


def _size(dimensions: Sequence[Dimension]) -> int | None:
    points = 1
    for dimension in dimensions:
        if (count := dimension.count) is None:
            return None
        if not dimension.branches:
            points *= count
            continue
        within = [_size(dimension.branches.get(value, ())) for value in dimension.values]
        if None in within:
            return None
        points *= sum(filter(None, within))
    return points
