"""Pictures of a search: its history, which keys matter, parallel coordinates, and the Pareto front.

Optuna computes importances and front. Its own pictures use pyplot, which has a global state, and cut off long names.
"""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from experiments.config.problems import cut, visible
from experiments.ranking.report.scales import scale_of
from experiments.sweeps.search.objective import candidates, is_feasible
from experiments.sweeps.search.parallel import SOFT, Target, parallel_coordinates
from experiments.task.pictures import TEST, TRAINING, VALIDATION

ENOUGH = 10  # finished trials; of fewer, importances say nothing
FAILED = "#d62728"
CONDITION = 40  # characters of what a key depends on


def pictures(study: optuna.Study, objectives: Sequence[str]) -> dict[str, bytes]:
    """Draw a search.

    Args:
        study: With its trials.
        objectives: Their names, in the study's order.

    Returns:
        PNG files by name. A picture is missing where the trials are too few, or too equal, to show anything.
    """
    lower = [direction == StudyDirection.MINIMIZE for direction in study.directions]
    targets = [Target(place, name, lower[place]) for place, name in enumerate(objectives)]
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    found: dict[str, Figure | None] = {}
    if len(finished) > 1:
        shown = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        found["history"] = _history(trials, targets)
        found["importances"] = _importances(study, finished, targets)
        found["parallel_coordinates"] = parallel_coordinates(shown, targets)
    if finished and len(targets) > 1:
        found["front"] = _front(study, finished, targets)
    return {f"{name}.png": _png(figure) for name, figure in found.items() if figure}


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
    return file.getvalue()


def _history(trials: Sequence[FrozenTrial], targets: Sequence[Target]) -> Figure:
    """What each trial has reached, and the best so far. Trials without a result are marks at the bottom."""
    figure = Figure(figsize=(8.6, 3.8 * len(targets)))
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    good = candidates(finished)
    for target, axes in zip(targets, figure.subplots(len(targets), squeeze=False)[:, 0], strict=True):
        scale = scale_of(map(target.of, finished), 0, 1)
        low, high = scale.low, scale.high
        if good:
            best = (np.minimum if target.lower else np.maximum).accumulate([target.of(trial) for trial in good])
            low, high = min(low, best[-1]), max(high, best[-1])
            numbers = [*(trial.number for trial in good), trials[-1].number]
            label = f"best so far: {best[-1]:.6g}"
            axes.plot(numbers, [*best, best[-1]], color=VALIDATION, drawstyle="steps-post", label=label)
        inside = [trial for trial in finished if low <= target.of(trial) <= high]
        for label, some, color, marker in (
            ("finished", [trial for trial in inside if is_feasible(trial)], TRAINING, "o"),
            ("breaks a constraint", [trial for trial in inside if not is_feasible(trial)], SOFT, "o"),
            ("below the axis", [trial for trial in finished if target.of(trial) < low], TRAINING, "v"),
            ("above the axis", [trial for trial in finished if target.of(trial) > high], TRAINING, "^"),
        ):
            if some:
                places = [trial.number for trial in some], [min(max(target.of(trial), low), high) for trial in some]
                axes.scatter(*places, 22, color, marker=marker, label=label, zorder=3)
        _mark(axes, trials)
        margin = 0.06 * (high - low)
        axes.set(xlabel="trial", ylabel=target.name, ylim=(low - margin, high + margin))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    return figure


def _mark(axes: Axes, trials: Sequence[FrozenTrial]) -> None:
    """Mark trials that were stopped early, and those that failed, at the bottom."""
    marks = {"stopped early": (TrialState.PRUNED, "|", TEST), "failed": (TrialState.FAIL, "x", FAILED)}
    for label, (state, marker, color) in marks.items():
        if numbers := [trial.number for trial in trials if trial.state == state]:
            bottom, place = [0.025] * len(numbers), axes.get_xaxis_transform()
            axes.scatter(numbers, bottom, 36, color, marker=marker, label=label, transform=place, zorder=3)


def _importances(study: optuna.Study, finished: Sequence[FrozenTrial], targets: Sequence[Target]) -> Figure | None:
    """How much each dimension matters for each objective."""
    varied = [target for target in targets if len({target.of(trial) for trial in finished}) > 1]
    if len(finished) < ENOUGH or not varied or len({name for trial in finished for name in trial.params}) < 2:
        return None
    from optuna.importance import get_param_importances  # imports scikit-learn: seconds

    with warnings.catch_warnings(action="ignore"):  # Optuna takes what a function returns as a cost, and warns of that
        shares = [get_param_importances(study, target=target.cost) for target in varied]
    names = sorted(shares[0], key=lambda name: shares[0][name])
    figure = Figure(figsize=(4.2 * len(varied), 0.8 + 0.42 * len(names)))
    panels = figure.subplots(1, len(varied), squeeze=False, sharey=True)[0]
    for target, share, axes in zip(varied, shares, panels, strict=True):
        values = [share.get(name, 0.0) for name in names]
        axes.barh(range(len(names)), values, 0.7, color=TRAINING)
        for place, value in enumerate(values):
            axes.annotate(f"{value:.0%}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set(xlim=(0, 1.15 * max(values) or 1.0), xticks=[])
        axes.set_title(f"importance for {target.name}", fontsize=11)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [_with_condition(name) for name in names], fontsize=9)
    panels[0].set_xlabel(f"PED-ANOVA (Watanabe et al. 2023), {len(finished)} finished trials", loc="left", fontsize=8)
    return figure


def _with_condition(name: str) -> str:
    condition, _, key = visible(name).rpartition(":")
    return f"{key}\nwhere {cut(condition.replace(':', ', '), CONDITION)}" if condition else key


def _front(study: optuna.Study, finished: Sequence[FrozenTrial], targets: Sequence[Target]) -> Figure:
    """The first objective against each of the others; the trials on the Pareto front with their numbers."""
    first, others = targets[0], targets[1:]
    figure = Figure(figsize=(6.4 * len(others), 4.4))
    best = {trial.number for trial in study.best_trials}
    for other, axes in zip(others, figure.subplots(1, len(others), squeeze=False)[0], strict=True):
        for label, color, some in (
            ("other trials", SOFT, [trial for trial in finished if trial.number not in best]),
            ("Pareto front", VALIDATION, [trial for trial in finished if trial.number in best]),
        ):
            axes.scatter(list(map(other.of, some)), list(map(first.of, some)), 26, color, label=label, zorder=3)
        for trial in (trial for trial in finished if trial.number in best):
            where = other.of(trial), first.of(trial)
            axes.annotate(str(trial.number), where, (5, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=other.name, ylabel=first.name)
        axes.ticklabel_format(axis="x", scilimits=(-4, 7))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure
