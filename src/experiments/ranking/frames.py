"""Runs as a pandas DataFrame."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.config.files import plain_value
from experiments.ranking.comparison import Run, best_first, differing

if TYPE_CHECKING:
    import pandas as pd


def frame(runs: Sequence[Run]) -> "pd.DataFrame":
    """A row for each run, those with the best objective first, group by group of those that can be compared.

    Columns are the parameters in which they differ, then the objective, status, seconds, the last value of each metric,
    the name and what the objective is a value of.
    """
    import pandas as pd

    ordered = best_first(runs)
    parameters = differing(ordered)
    rows = [
        {
            "run_id": run.run_id,
            **{key: plain_value(run.parameters.get(key, "")) for key in parameters},
            "objective": math.nan if run.objective is None else run.objective,
            "status": run.status,
            "seconds": math.nan if run.seconds is None else run.seconds,
            **{key: value for key, value in run.metrics.items() if key != "objective"},
            "name": run.name,
            "measured_as": run.measured.measured_as if run.measured else "",
        }
        for run in ordered
    ]
    return pd.DataFrame(rows).set_index("run_id")
