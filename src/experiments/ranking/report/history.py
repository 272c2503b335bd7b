"""The history of a search: what its trials have reached, against the epochs spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.ranking.comparison import Comparison
from experiments.ranking.report.scales import Scale, Tick, scale_of
from experiments.ranking.trials import Trial


@dataclass(frozen=True)
class Point:
    """A trial: where it is drawn, the number of its config (None: it has no place in the ranking), and its text."""

    x: float
    y: float
    config: int | None
    text: str


@dataclass(frozen=True)
class History:
    """What the chart shows.

    Attributes:
        x: Ticks of the epochs spent.
        y: Ticks of the objective.
        best: The `d` of an SVG path: the best so far.
        finished: The trials that have a value.
        stopped: Those that were stopped early, at the bottom.
        others: Those without a result for another reason, at the bottom.
        counts: Of all trials, in words.
    """

    x: Sequence[Tick]
    y: Sequence[Tick]
    best: str
    finished: Sequence[Point]
    stopped: Sequence[Point]
    others: Sequence[Point]
    counts: str


def history(comparison: Comparison, width: float, height: float) -> History | None:
    """The history, within the given size; None: the runs are of no search."""
    trials = comparison.trials
    values = [trial.value for trial in trials if trial.value is not None]
    if not values:
        return None
    scale = scale_of(values, height - 14, 0)
    last = trials[-1].best or 0.0  # however far it lies from all others
    y = replace(scale, low=min(scale.low, last), high=max(scale.high, last))
    x = Scale(0, max(trials[-1].spent, 1), 0, width)
    configs = dict(zip(comparison.runs["run_id"], comparison.runs["rank"] - 1, strict=True))
    points = [
        Point(x(trial.spent), height - 7 if trial.value is None else y(trial.value), configs.get(trial.run_id), text)
        for trial in trials
        for text in [_text(trial, comparison.ranked_by)]
    ]
    pairs = list(zip(trials, points, strict=True))
    return History(
        x.ticks(5, whole=True),
        y.ticks(5),
        _steps(trials, x, y),
        [point for trial, point in pairs if trial.value is not None],
        [point for trial, point in pairs if trial.status == "PRUNED"],
        [point for trial, point in pairs if trial.value is None and trial.status != "PRUNED"],
        _counts(trials),
    )


def _steps(trials: Sequence[Trial], x: Scale, y: Scale) -> str:
    path, before = "", None
    for trial in trials:
        if trial.best is not None and trial.best != before:
            path += f"H{x(trial.spent):g}V{y(trial.best):g}" if path else f"M{x(trial.spent):g} {y(trial.best):g}"
            before = trial.best
    return f"{path}H{x(trials[-1].spent):g}"


def _text(trial: Trial, ranked_by: str) -> str:
    name = "known before" if trial.number is None else f"trial {trial.number}"
    after = f"after epoch {trial.epochs}" if trial.status == "PRUNED" else ""
    reached = trial.status if trial.value is None else f"{ranked_by} {trial.value:.6g}"
    return f"{name}: {' '.join(filter(None, [reached, after]))}"


def _counts(trials: Sequence[Trial]) -> str:
    """As in: 40 trials: 25 finished, 14 stopped early, 1 failed; 251 epochs."""
    statuses = [trial.status for trial in trials if trial.number is not None]
    words = {"PRUNED": "stopped early"}
    told = [f"{statuses.count(status)} {words.get(status, status.lower())}" for status in dict.fromkeys(statuses)]
    known = len(trials) - len(statuses)
    told += [f"{known} known before"] * bool(known)
    return f"{len(statuses)} trial{'s' * (len(statuses) != 1)}: {', '.join(told)}; {trials[-1].spent} epochs"
