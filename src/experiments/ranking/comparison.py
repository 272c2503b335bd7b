"""Recorded runs side by side: grouped by config over their seeds, ranked, and what the ranking is worth."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from experiments.config.objective import Objective
from experiments.ranking.significance import judge

INTERVALS = "intervals: 95 % of the mean, by Student's t"
# Parameters, by what their keys start with, that say how and where a run is carried out, not what it is.
CIRCUMSTANCES = ("runtime.", "tracking.", "trust", "resume", "data.path")


@dataclass(frozen=True)
class Run:
    """A run, as a comparison sees it.

    Attributes:
        run_id: MLflow's; empty where nothing was recorded.
        name: Of the run, for people.
        status: FINISHED, FAILED, KILLED, RUNNING, or "not run".
        parameters: The config as it was recorded, dotted keys to text.
        objective: The value that it is ranked by; None unless it finished.
        measured: What that is a value of; None where the record does not say.
        fingerprint: Of its config; empty where the record does not say.
        seconds: From its start to its end.
        metrics: The last value of every metric.
        curves: The values of the metrics of each epoch, by epoch.
        failure: Why it failed.
        log: The file that its output went to.
    """

    run_id: str
    name: str
    status: str
    parameters: Mapping[str, str]
    objective: float | None = None
    seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failure: str = ""
    log: str = ""
    uuid: str = ""
    measured: Objective | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Standing:
    """The place of one config in the ranking, over all of its seeds.

    Attributes:
        settings: The parameters that differ between the configs compared, but for the seed.
        runs: Its finished runs, in the order of their seeds.
        mean: Of the objective.
        deviation: The sample standard deviation (n - 1); None for a single run.
        interval: The 95 % confidence interval of the mean; None for a single run.
        indistinguishable_from_best: Whether it does not differ significantly from the best of the configs that have
            several seeds (that one does not, either); None for a single seed, which cannot be judged.
    """

    settings: Mapping[str, str]
    runs: Sequence[Run]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    indistinguishable_from_best: bool | None


@dataclass(frozen=True)
class Comparison:
    """Runs, compared.

    Attributes:
        title: What they are.
        ranked_by: The objective: a metric's name.
        lower_is_better: Whether the objective is to be made small.
        measured_as: What the runs have in common, so that they can be compared; see `Objective`.
        parameters: The keys that differ between the runs, in the config's order; with ``seed``, if that differs.
        standings: The configs with finished runs, the best first.
        unfinished: Runs without a result.
        method: How it was decided which configs differ significantly from the best, in one sentence, with its source;
            empty where each config has a single seed, so that nothing can be said.
        repeats: How many runs are left out, as a later one has the same config and seed.
    """

    title: str
    ranked_by: str
    lower_is_better: bool
    measured_as: str
    parameters: Sequence[str]
    standings: Sequence[Standing]
    unfinished: Sequence[Run]
    method: str
    repeats: int = 0


def compare(
    runs: Sequence[Run], title: str, objective: Objective, circumstances: Collection[str] = CIRCUMSTANCES
) -> Comparison:
    """Group runs by config over their seeds, and rank the configs by their means.

    Args:
        runs: In the order in which they started: of runs with the same config and seed, the last that finished counts.
        title: What they are.
        objective: What they are ranked by, all of them; see `comparable`.
        circumstances: Parameters, by what their keys start with, that make no other config of it. They count only
            where nothing else differs.
    """
    lower, keys = objective.lower_is_better, differing(runs, circumstances)
    settings = [key for key in keys if key != "seed"]
    counted = _last_of_repeats(runs, keys)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in counted:
        if has_result(run):
            groups.setdefault(tuple(_value(run, key) for key in settings), []).append(run)
    standings = [_standing(dict(zip(settings, values, strict=True)), group) for values, group in groups.items()]
    standings.sort(key=lambda standing: standing.mean if lower else -standing.mean)
    verdict = judge([_by_seed(standing) for standing in standings], lower)
    standings = [
        replace(standing, indistinguishable_from_best=mark)
        for standing, mark in zip(standings, verdict.indistinguishable_from_best, strict=True)
    ]
    several = any(len(standing.runs) > 1 for standing in standings)
    method = "; ".join(filter(None, [verdict.method, INTERVALS])) if several else ""
    unfinished = [run for run in counted if not has_result(run)]
    repeats = len(runs) - len(counted)
    return Comparison(
        title, objective.metric, lower, objective.measured_as, keys, standings, unfinished, method, repeats
    )


def comparable(runs: Iterable[Run]) -> dict[Objective, list[Run]]:
    """Sort runs by what they are measured as: only those of one group can be ranked together.

    Returns:
        The groups, the largest first. Runs whose record does not say are left out.
    """
    groups: dict[Objective, list[Run]] = {}
    for run in runs:
        if run.measured:
            groups.setdefault(run.measured, []).append(run)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def best_first(runs: Sequence[Run]) -> list[Run]:
    """Runs, group by group of those that can be compared, the largest group first; then those whose record is silent.

    In a group, the best is the first, and those without a result are the last.
    """
    ranked = list[Run]()
    for objective, group in comparable(runs).items():
        sign = 1 if objective.lower_is_better else -1
        with_result = sorted(filter(has_result, group), key=lambda run: sign * (run.objective or 0.0))
        ranked += [*with_result, *(run for run in group if not has_result(run))]
    return [*ranked, *(run for run in runs if run.measured is None)]


def best_run(comparison: Comparison) -> tuple[Standing, Run] | None:
    """The best run of the config with the best mean; a config with one seed counts only where none has two.

    None if no run has a result.
    """
    several = [standing for standing in comparison.standings if len(standing.runs) > 1]
    for standing in several or comparison.standings:
        return standing, _best_of(standing.runs, comparison.lower_is_better)
    return None


def by_run(comparison: Comparison) -> Comparison:
    """The same runs, each ranked for itself: the seed is a setting like any other."""
    standings = [
        Standing(
            {key: _value(run, key) for key in comparison.parameters}, [run], run.objective or 0.0, None, None, None
        )
        for standing in comparison.standings
        for run in standing.runs
    ]
    standings.sort(key=lambda standing: standing.mean if comparison.lower_is_better else -standing.mean)
    return replace(comparison, standings=standings, method="")


def best_runs(comparison: Comparison, count: int = 3) -> list[str]:
    """Ids: the best run of each of the best configs."""
    best = (_best_of(standing.runs, comparison.lower_is_better) for standing in comparison.standings[:count])
    return [run.run_id for run in best]


def _best_of(runs: Sequence[Run], lower_is_better: bool) -> Run:
    return (min if lower_is_better else max)(runs, key=lambda run: run.objective or 0.0)


def has_result(run: Run) -> bool:
    """Whether a run can be ranked."""
    return run.status == "FINISHED" and run.objective is not None and math.isfinite(run.objective)


def curve_of(metric: str) -> str:
    """The name of the curve that belongs to a metric that was measured at the end."""
    return metric.removeprefix("test_").removeprefix("final_")


def differing(runs: Sequence[Run], circumstances: Collection[str] = CIRCUMSTANCES) -> list[str]:
    """The parameters that are not the same in all runs, in the runs' order.

    Left out are those that follow from the name of their section, as ``optimizer.rho`` does from ``optimizer.name``;
    and circumstances, unless nothing else differs.
    """
    known = [run for run in runs if run.parameters]  # a worker that died early recorded none
    keys = dict.fromkeys(key for run in known for key in run.parameters)
    found = [key for key in keys if len({_value(run, key) for run in known}) > 1]
    settings = [key for key in found if not key.startswith(tuple(circumstances))] or found
    return [key for key in settings if not _follows(key, settings, known)]


def _value(run: Run, key: str) -> str:
    value = run.parameters.get(key, "")
    return "" if value == "{}" else value  # a section without entries, which has keys of its own elsewhere


def _follows(key: str, differing: Sequence[str], runs: Sequence[Run]) -> bool:
    """Whether the name of a section that the parameter is in decides its value, in all runs."""
    sections = key.split(".")
    names = [".".join([*sections[:depth], "name"]) for depth in range(1, len(sections))]
    return any(
        name != key
        and name in differing
        and len({(_value(run, name), _value(run, key)) for run in runs}) == len({_value(run, name) for run in runs})
        for name in names
    )


def _last_of_repeats(runs: Sequence[Run], keys: Sequence[str]) -> list[Run]:
    """Of each config and seed, the last run that finished; where none did, the last.

    A run that failed before its parameters were recorded has those of the runs with its fingerprint.
    """
    recorded = {run.fingerprint: run for run in runs if run.parameters and run.fingerprint}
    last: dict[object, Run] = {}
    for number, run in enumerate(runs):
        known = run if run.parameters else recorded.get(run.fingerprint)
        which = tuple(_value(known, key) for key in keys) if known else run.fingerprint or number
        if has_result(run) or which not in last or not has_result(last[which]):
            last.pop(which, None)
            last[which] = run
    return list(last.values())


def _standing(settings: Mapping[str, str], runs: Sequence[Run]) -> Standing:
    ordered = sorted(runs, key=lambda run: _seed_order(seed_of(run)))
    values = [run.objective for run in ordered if run.objective is not None]
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Standing(settings, ordered, mean, None, None, None)
    deviation = math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
    half = _quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Standing(settings, ordered, mean, deviation, (mean - half, mean + half), None)


@cache
def _quantile(freedom: int) -> float:
    """What Student's t with so many degrees of freedom exceeds in 2.5 % of all cases."""
    from scipy.special import stdtrit  # `scipy.stats` has it, too, but takes a second to import

    return float(stdtrit(freedom, 0.975))


def seed_of(run: Run) -> str:
    """The seed as it was recorded; empty if it was not."""
    return run.parameters.get("seed", "")


def _by_seed(standing: Standing) -> dict[str, float]:
    return {seed_of(run): run.objective for run in standing.runs if run.objective is not None}


def _seed_order(seed: str) -> tuple[float, str]:
    return (float(seed) if seed.isdecimal() else math.inf, seed)
