"""The parallel coordinates of a search. A key that depends on a choice has one axis, whatever its branches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from experiments.config.problems import cut, visible
from experiments.ranking.report.scales import Scale, Tick, apart, natural, scale_of
from experiments.sweeps.search.objective import is_feasible
from experiments.task.pictures import TEST

TALL = 1000.0  # length of an axis
UNUSED = -0.11 * TALL  # where the line of a trial without a key passes
SIDE = 0.036 * TALL  # lines that share a choice lie side by side, within so much
INCHES, LABEL, NAME = 1.7, 16, 24  # between axes; characters of a tick, and of a name
SOFT = "#bbbbbb"
OUTSIDE = 0.03  # lengths of an axis that a line ends outside of it, where its value is too far off to be shown


@dataclass(frozen=True)
class Target:
    """An objective.

    Attributes:
        place: Among the values of a trial.
        name: For people.
        lower: Whether it is to be made small.
    """

    place: int
    name: str
    lower: bool

    def of(self, trial: FrozenTrial) -> float:
        """Its value in a finished trial."""
        return float(trial.values[self.place])

    def cost(self, trial: FrozenTrial) -> float:
        """The same, negated if it is to be made large."""
        return self.of(trial) if self.lower else -self.of(trial)


@dataclass(frozen=True)
class _Axis:
    """One of the parallel axes: what it is called, where a value lies, its ticks, and whether it is of choices."""

    name: str
    place: Callable[[Any], float]
    ticks: Sequence[Tick]
    of_choices: bool = False


def parallel_coordinates(trials: Sequence[FrozenTrial], targets: Sequence[Target]) -> Figure | None:
    """A line for each trial, from the values of its keys to its objectives: the better, the darker and higher.

    Args:
        trials: Those that finished, and those that were stopped early.
        targets: The objectives; the first one gives the colours.
    """
    if not (axes := _axes(trials)):
        return None
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    outcomes = [_outcome(target, finished) for target in targets]
    figure = Figure(figsize=(INCHES * (len(axes) + len(targets) - 1), 4.4))
    plot = figure.add_axes((0, 0, 1, 1))
    plot.axis("off")
    has_far = False
    for number, (trial, style) in enumerate(_styled(trials, targets[0])):
        chosen = {name.rpartition(":")[2]: value for name, value in trial.params.items()}
        aside = SIDE * (number / len(trials) - 0.5)
        heights = [axis.place(chosen.get(axis.name)) + aside * axis.of_choices for axis in axes]
        if trial.state == TrialState.COMPLETE:
            ends = [outcome.place(target.of(trial)) for outcome, target in zip(outcomes, targets, strict=True)]
            has_far |= any(not 0 <= end <= TALL for end in ends)
            heights += ends
        plot.plot(heights, **style)
    for place, axis in enumerate([*axes, *outcomes]):
        _draw_axis(plot, place, axis)
    plot.text(0, UNUSED - 90, _legend(trials, has_far), fontsize=9, color=TEST, va="top")
    return figure


def _styled(trials: Sequence[FrozenTrial], target: Target) -> Iterator[tuple[FrozenTrial, Mapping[str, Any]]]:
    """Each trial with the style of its line, the best one last, so that it is on top."""
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            yield trial, {"color": SOFT, "linewidth": 0.8}
        elif not is_feasible(trial):
            yield trial, {"color": SOFT, "linewidth": 1.2, "linestyle": "--"}
    good = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial)]
    shades = colormaps["viridis"](np.linspace(0.9, 0.05, len(good)))
    best_first = sorted(good, key=target.cost)
    for trial, shade in zip(reversed(best_first), shades, strict=True):
        yield trial, {"color": shade, "linewidth": 1.3, "alpha": 0.85}


def _legend(trials: Sequence[FrozenTrial], has_far: bool) -> str:
    """What the lines mean."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    stopped, bad = len(trials) - len(finished), sum(not is_feasible(trial) for trial in finished)
    said = [f"{len(finished)} finished trials, the best dark"]
    said += [f"dashed: break{'s' * (bad == 1)} a constraint ({bad})"] if bad else []
    said += [f"grey: stopped early ({stopped})"] if stopped else []
    far = "\na line that ends outside of an axis: too far off to be shown" if has_far else ""
    return "; ".join(said) + far


def _axes(trials: Sequence[FrozenTrial]) -> list[_Axis]:
    """The axes of the keys that differ between trials; a key that depends on a choice beside those before it."""
    order = list[str]()
    used: dict[str, list[tuple[BaseDistribution, Any]]] = {}
    for trial in trials:
        place = 0
        for name, value in trial.params.items():
            key = name.rpartition(":")[2]
            if key not in used:
                order.insert(place, key)
            used.setdefault(key, []).append((trial.distributions[name], value))
            place = order.index(key) + 1
    differing = [key for key in order if len({value for _, value in used[key]}) > 1]
    axes = [_axis(key, *zip(*used[key], strict=True)) for key in differing]
    unused = Tick(UNUSED, "unused")
    return [replace(axis, ticks=[*axis.ticks, *[unused] * (len(used[axis.name]) < len(trials))]) for axis in axes]


def _axis(key: str, distributions: Sequence[BaseDistribution], values: Sequence[Any]) -> _Axis:
    """The axis of a key, whose range may depend on a choice."""
    numbers = [each for each in distributions if isinstance(each, FloatDistribution | IntDistribution)]
    if len(numbers) == len(distributions):
        low, high = min(each.low for each in numbers), max(each.high for each in numbers)
        scale = Scale(low, high, 0, TALL, log=all(each.log for each in numbers))
        ends = [Tick(0, f"{low:g}"), Tick(TALL, f"{high:g}")]
        ticks = apart([*ends, *(tick for tick in scale.ticks() if 80 < tick.at < TALL - 80)], 1)
        return _Axis(key, lambda value: UNUSED if value is None else scale(value), ticks)
    choices = sorted({str(value) for value in values}, key=natural)
    places = {choice: TALL * (number + 0.5) / len(choices) for number, choice in enumerate(choices)}
    ticks = apart([Tick(place, choice) for choice, place in places.items()], 40)
    return _Axis(key, lambda value: UNUSED if value is None else places[str(value)], ticks, of_choices=True)


def _outcome(target: Target, finished: Sequence[FrozenTrial]) -> _Axis:
    scale = scale_of(map(target.of, finished), *((TALL, 0.0) if target.lower else (0.0, TALL)))
    return _Axis(target.name, replace(scale, beyond=OUTSIDE), scale.ticks(5))


def _draw_axis(plot: Axes, place: int, axis: _Axis) -> None:
    section, _, last = visible(axis.name).rpartition(".")
    plot.plot([place, place], [0, TALL], color=TEST, linewidth=1)
    plot.text(place, TALL + 40, f"{cut(section, NAME)}\n{cut(last, NAME)}", ha="center", va="bottom", fontsize=9)
    behind: Mapping[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    for tick in axis.ticks:
        label = cut(visible(tick.label), LABEL)
        plot.plot([place - 0.03, place], [tick.at, tick.at], color=TEST, linewidth=1)
        plot.text(place - 0.05, tick.at, label, ha="right", va="center", fontsize=8, bbox=behind)
