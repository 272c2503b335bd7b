"""Recorded runs side by side: grouped by config over their seeds, ranked, and what the ranking is worth."""

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from experiments.config.objective import Goal, Objective
from experiments.ranking.frame import (
    CIRCUMSTANCES,
    OBJECTIVE,
    PARAMS,
    Row,
    differing,
    has_parameters,
    parameters,
    records,
)
from experiments.ranking.front import common_goals, with_goals
from experiments.ranking.significance import judge
from experiments.ranking.trials import Trial, trials_of

if TYPE_CHECKING:
    import pandas as pd

INTERVALS = "intervals: 95 % of the mean, by Student's t"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs, compared.

    Attributes:
        title: What they are.
        ranked_by: The objective: a metric's name.
        lower_is_better: Whether the objective is to be made small.
        measured_as: What the runs have in common, so that they can be compared; see `Objective`.
        parameters: The keys that differ between the runs, in the config's order; with ``seed``, if that differs.
        configs: The configs with finished runs, in the order in which they are shown; the index is the rank, from 1:
            ``params.KEY`` for each of `parameters`; the objective's ``mean`` and, over ``n`` > 1 runs, its sample
            standard ``deviation`` (n - 1) and the 95 % confidence interval of the mean, ``low`` to ``high``;
            ``indistinguishable_from_best``: whether it does not differ significantly from the best of the configs that
            have several seeds (that one does not, either); None for a single seed, which cannot be judged.
        runs: Their runs, config by config in the same order, in the order of their seeds; ``rank`` is the config's.
        unfinished: Runs without a result.
        method: How it was decided which configs differ significantly from the best, in one sentence, with its source;
            empty where each config has a single seed, so that nothing can be said.
        repeats: How many runs are left out, as a later one has the same config and seed.
        goals: The objectives, if the runs have several: `configs` has a column ``goals.NAME`` for each, the mean of its
            runs, and ``on_front``: whether it is on the Pareto front.
        trials: Those of the search that the runs are of.
        sorted_by: The parameter or metric that the configs are in the order of; empty: by rank.
    """

    title: str
    ranked_by: str
    lower_is_better: bool
    measured_as: str
    parameters: Sequence[str]
    configs: "pd.DataFrame"
    runs: "pd.DataFrame"
    unfinished: "pd.DataFrame"
    method: str
    repeats: int = 0
    goals: Sequence[Goal] = ()
    trials: Sequence[Trial] = ()
    sorted_by: str = ""

    @property
    def settings(self) -> list[str]:
        """The parameters that differ between the configs."""
        return [key for key in self.parameters if key != "seed"]

    @property
    def has_several_seeds(self) -> bool:
        """Whether any config has runs with several seeds."""
        return bool((self.configs["n"] > 1).any())


def compare(
    runs: "pd.DataFrame", title: str, objective: Objective, circumstances: Collection[str] = CIRCUMSTANCES
) -> Comparison:
    """Group runs by config over their seeds, and rank the configs by their means.

    Args:
        runs: In the order in which they started: of runs with the same config and seed, the last that finished counts.
        title: What they are.
        objective: What they are ranked by, all of them; see `comparable`.
        circumstances: Beginnings of keys that are ignored when runs are grouped into configs, unless nothing else
            differs.
    """
    keys = differing(runs, circumstances)
    counted = _last_of_repeats(runs, keys)
    finished = counted[has_result(counted)]
    settings = [key for key in keys if key != "seed"]
    configs, ranked, method = _ranked(finished, _values(finished, settings), keys, objective.lower_is_better)
    if (configs["n"] > 1).any():
        method = "; ".join(filter(None, [method, INTERVALS]))
    unfinished, repeats = counted[~has_result(counted)], len(runs) - len(counted)
    goals, trials = common_goals(ranked), trials_of(runs, objective.lower_is_better)
    configs = with_goals(configs, ranked, goals)
    return Comparison(title, *objective, keys, configs, ranked, unfinished, method, repeats, goals, trials)


def by_run(comparison: Comparison) -> Comparison:
    """The same runs, each ranked for itself: the seed is a setting like any other."""
    runs, lower = comparison.runs, comparison.lower_is_better
    configs, runs, _ = _ranked(runs, list(runs.index), comparison.parameters, lower)
    return replace(comparison, configs=with_goals(configs, runs, comparison.goals), runs=runs, method="")


def _ranked(
    runs: "pd.DataFrame", groups: Sequence[Hashable], keys: Sequence[str], lower_is_better: bool
) -> tuple["pd.DataFrame", "pd.DataFrame", str]:
    """Rank groups of finished runs: the configs, their runs, and how they were tested; see `Comparison`."""
    import pandas as pd

    seeds = parameters(runs, ["seed"])["seed"]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    runs = runs.assign(group=pd.Series([numbers[group] for group in groups], runs.index, dtype=int))
    runs = runs.loc[sorted(runs.index, key=lambda run: _seed_order(seeds[run]))]
    found = pd.DataFrame(
        [{"group": group, **_statistics(values.tolist())} for group, values in runs.groupby("group")["objective"]],
        columns=["group", "mean", "deviation", "low", "high", "n"],
    ).sort_values("mean", ascending=lower_is_better, kind="stable")
    found.index = pd.RangeIndex(1, len(found) + 1)
    ranks = {group: rank for rank, group in found["group"].items()}
    runs = runs.assign(rank=runs["group"].map(ranks).astype(int)).sort_values("rank", kind="stable")
    by_seed = runs["objective"].groupby(runs["rank"])
    verdict = judge([dict(zip(seeds[values.index], values, strict=True)) for _, values in by_seed], lower_is_better)
    found["indistinguishable_from_best"] = pd.Series(verdict.indistinguishable_from_best, found.index, dtype=object)
    first = runs.drop_duplicates("rank")
    settings = pd.DataFrame(_values(first, keys), found.index, [PARAMS + key for key in keys], dtype=object)
    return settings.join(found.drop(columns="group")), runs.drop(columns="group"), verdict.method


def _statistics(values: Sequence[float]) -> Row:
    mean, n = fmean(values), len(values)
    if n < 2:
        return {"mean": mean, "n": n}
    deviation = math.hypot(*(value - mean for value in values)) / math.sqrt(n - 1)
    half = _quantile(n - 1) * deviation / math.sqrt(n)
    return {"mean": mean, "n": n, "deviation": deviation, "low": mean - half, "high": mean + half}


@cache
def _quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # `scipy.stats` has it, too, but takes a second to import

    return float(stdtrit(freedom, 0.975))


def _seed_order(seed: str) -> tuple[float, str]:
    return (float(seed) if seed.isdecimal() else math.inf, seed)


def standings(comparison: Comparison) -> list[Row]:
    """The configs with their runs as plain data, in the order in which they are shown."""
    runs = {rank: records(runs) for rank, runs in comparison.runs.groupby("rank")}
    return [
        {
            "rank": rank,
            "n": config["n"],
            "settings": {key: config[PARAMS + key] for key in comparison.settings},
            "runs": runs[rank],
            "mean": config["mean"],
            "deviation": config["deviation"] if config["n"] > 1 else None,
            "interval": (config["low"], config["high"]) if config["n"] > 1 else None,
            "indistinguishable_from_best": config["indistinguishable_from_best"],
        }
        for rank, config in comparison.configs.to_dict("index").items()
    ]


def comparable(runs: "pd.DataFrame") -> dict[Objective, "pd.DataFrame"]:
    """Sort runs by what they are measured as: only those of one group can be ranked together.

    Returns:
        The groups, the largest first. Runs whose record does not say are left out.
    """
    groups = runs.groupby(list(OBJECTIVE), sort=False)
    largest_first = sorted(groups, key=lambda group: -len(group[1]))
    return {Objective(metric, bool(lower), text): group for (metric, lower, text), group in largest_first}


def best_first(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Runs, group by group of those that can be compared, the largest group first; then the others.

    In a group, the best is the first, and those without a result are the last.
    """
    ranked = list[Hashable]()
    for objective, group in comparable(runs).items():
        results = group["objective"].where(has_result(group))
        ranked.extend(results.sort_values(ascending=objective.lower_is_better, kind="stable").index)
    return runs.loc[[*ranked, *runs.index[runs["measured_as"].isna()]]]


def best_runs(comparison: Comparison) -> "pd.DataFrame":
    """The best run of each config, the best config first."""
    lower = comparison.lower_is_better
    best = comparison.runs.sort_values("objective", ascending=lower, kind="stable").drop_duplicates("rank")
    return best.sort_values("rank")


def has_result(runs: "pd.DataFrame") -> "pd.Series[bool]":
    """Whether each run can be ranked."""
    return (runs["status"] == "FINISHED") & np.isfinite(runs["objective"])


def curve_of(metric: str) -> str:
    """The name of the curve that belongs to a metric that was measured at the end."""
    return metric.removeprefix("test_").removeprefix("final_")


def _values(runs: "pd.DataFrame", keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Parameters of each run; empty for a section without entries, which has keys of its own elsewhere."""
    return [tuple(values) for values in parameters(runs, keys).replace("{}", "").to_numpy()]


def _last_of_repeats(runs: "pd.DataFrame", keys: Sequence[str]) -> "pd.DataFrame":
    """Keep one run per config and seed: the last that finished, else the last.

    A run that failed before its parameters were recorded has those of the runs with its fingerprint.
    """
    import pandas as pd

    known = list(zip(runs["fingerprint"], has_parameters(runs), _values(runs, keys), strict=True))
    recorded = {fingerprint: values for fingerprint, has_any, values in known if fingerprint and has_any}
    config = pd.Series(
        [
            values if has_any else recorded.get(fingerprint, fingerprint or number)
            for number, (fingerprint, has_any, values) in enumerate(known)
        ],
        runs.index,
        dtype=object,
    )
    finished_last = has_result(runs).sort_values(kind="stable").index
    return runs.loc[sorted(config[finished_last].drop_duplicates(keep="last").index)]
