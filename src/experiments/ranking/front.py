"""The Pareto front of configs that have several objectives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.config.objective import Goal, recorded_goals
from experiments.ranking.frame import METRICS

if TYPE_CHECKING:
    import pandas as pd

GOALS = "goals."


def common_goals(runs: "pd.DataFrame") -> list[Goal]:
    """The objectives of runs, if those that have several have the same, and all runs recorded the measures."""
    found = {text for text in runs["goals"] if text}
    goals = recorded_goals(found.pop()) if len(found) == 1 else []
    known = all(METRICS + goal.measure in runs and runs[METRICS + goal.measure].notna().all() for goal in goals)
    return goals if known else []


def with_goals(configs: "pd.DataFrame", runs: "pd.DataFrame", goals: Sequence[Goal]) -> "pd.DataFrame":
    """Add the value of each objective to configs, as a mean over their runs, and whether they are on the front.

    Args:
        configs: By rank.
        runs: Theirs, with the column ``rank``.
        goals: Columns ``goals.NAME`` and ``on_front`` are added; if empty, none.
    """
    if not goals:
        return configs
    found = {GOALS + goal.name: runs.groupby("rank")[METRICS + goal.measure].mean() for goal in goals}
    costs = np.column_stack([found[GOALS + goal.name] * (1 if goal.lower_is_better else -1) for goal in goals])
    return configs.assign(**found, on_front=[not dominated(costs, place) for place in range(len(costs))])


def dominated(costs: "np.typing.NDArray[np.float64]", place: int) -> bool:
    """Whether another row is nowhere larger than the row at a place, and somewhere smaller.

    Args:
        costs: What is to be made small (configs, objectives).
        place: Of the row.
    """
    own = costs[place]
    return bool(((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any())
