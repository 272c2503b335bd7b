"""The trials of a search: what each has reached, and the epochs that were spent on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TRIAL = "trial"  # a column of the runs of a search: the number of the trial; empty for a run of another sweep


@dataclass(frozen=True)
class Trial:
    """A trial, or a run that had finished before and answered for one.

    Attributes:
        number: As the search counts, from 0; None: the run had finished before.
        status: Of its last run: FINISHED, PRUNED, INFEASIBLE, FAILED, ...
        value: The objective, a mean over the seeds; None unless it is FINISHED.
        epochs: Number of epochs that were trained for it, by all of its runs.
        spent: The same for all trials up to this one.
        best: The best value so far, of those with the most seeds; None: there is none.
        run_id: Of its last run.
    """

    number: int | None
    status: str
    value: float | None
    epochs: int
    spent: int
    best: float | None
    run_id: str


def trials_of(runs: "pd.DataFrame", lower_is_better: bool) -> list[Trial]:
    """The trials in the order of their numbers, after what was known before; empty: the runs are of no search.

    Args:
        runs: In the order in which they started, with their curves.
        lower_is_better: Whether the objective is to be made small.
    """
    if TRIAL not in runs or not runs[TRIAL].any():
        return []
    numbers = [int(text) if str(text).isdecimal() else None for text in runs[TRIAL]]
    by_trial: dict[int | str, list[tuple[str, str, float, int]]] = {}
    columns = (runs["run_id"], runs["status"], runs["objective"], runs["curves"])
    for number, (run_id, status, objective, curves) in zip(numbers, zip(*columns, strict=True), strict=True):
        epochs = max(map(len, curves.values()), default=0)
        by_trial.setdefault(run_id if number is None else number, []).append((run_id, status, objective, epochs))
    ended = [[status for _, status, *_ in each] for each in by_trial.values()]
    most = max((each.count("FINISHED") for each in ended if each[-1] == "FINISHED"), default=0)
    found = list[Trial]()
    for key in sorted(by_trial, key=lambda key: key if isinstance(key, int) else -1):
        number = key if isinstance(key, int) else None
        found.append(_trial(number, by_trial[key], most, found[-1] if found else None, lower_is_better))
    return found


def _trial(
    number: int | None,
    runs: Sequence[tuple[str, str, float, int]],
    most: int,
    before: Trial | None,
    lower_is_better: bool,
) -> Trial:
    run_id, status, _, _ = runs[-1]
    reached = [objective for _, status, objective, _ in runs if status == "FINISHED"]
    value = fmean(reached) if status == "FINISHED" else None
    epochs = 0 if number is None else sum(epochs for *_, epochs in runs)
    candidate = value if len(reached) == most else None
    known = [each for each in (candidate, before.best if before else None) if each is not None]
    best = (min if lower_is_better else max)(known, default=None)
    return Trial(number, status, value, epochs, epochs + (before.spent if before else 0), best, run_id)
