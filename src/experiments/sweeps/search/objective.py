"""What a search chooses by."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from experiments.config import Config, Problem, Refused
from experiments.config.measures import mode_of
from experiments.config.objective import COSTS, MODEL_BYTES, Goal, goals_of, objective_of
from experiments.config.problems import assign, closest, suggest
from experiments.sweeps.jobs import Job, Outcome

OF_ALL_SEEDS = ("parameters", MODEL_BYTES)  # costs that are the same whatever the seed
COMPARED = 6  # a config's next seed depends on its results from so many configs on


def same_goals(
    jobs: Sequence[Job], constraints: Mapping[str, float], *, prunes: bool, several_seeds: bool
) -> list[Goal]:
    """The objectives of all jobs, which they have in common.

    Args:
        jobs: Of the corners of the space.
        constraints: The largest values of measures.
        prunes: Whether the search stops trials early.
        several_seeds: Whether a trial has several runs.

    Raises:
        Refused: They differ, are measured on the test set, or are several though trials are stopped early; or a
            constraint is about what is not measured.
    """
    found = {objective_of(job.config, "").measured_as: job.config for job in jobs}
    if len(found) > 1:
        listed = "; ".join(" ".join(each.split()) for each in found)
        raise Refused(Problem("objective", f"a search needs one for all of its trials, got several: {listed}"))
    [config] = found.values()
    metric = config.objective_metric
    if metric.startswith("test_"):
        what = f"got {metric}, but a search chooses by it, and the test set must not choose a model"
        raise Refused(Problem("objective", what, "objective=auto" if config.validates else "data.validation_size=0.1"))
    if (goals := goals_of(config)) and prunes:
        what = f"got {len(goals)}: a trial can be stopped early for one objective only"
        raise Refused(Problem("objective", what, "hydra/sweeper/pruner=off"))
    if problems := list(_wrong_limits(config, constraints, several_seeds)):
        raise Refused(problems)
    if (goals or constraints) and not config.tracking.enabled:
        what = "costs of runs are known from their record, but tracking is off"
        raise Refused(Problem("tracking", what, "tracking=mlflow"))
    return goals or [Goal(metric, bool(config.lower_is_better))]


def _wrong_limits(config: Config, constraints: Mapping[str, float], several_seeds: bool) -> Iterator[Problem]:
    known = [*COSTS, *(f"val_{name}" for name in config.metric_names)]
    for name, limit in constraints.items():
        what, remedy = "", ""
        if name not in known:
            meant = closest(name, known)
            what = f"is neither a cost nor a metric of the validation set; {suggest(name, known)}"
            remedy = assign("hydra.sweeper.constraints", {meant: limit}) if meant else ""
        elif several_seeds and name not in OF_ALL_SEEDS:
            what = f"differs from seed to seed; with several seeds, {' and '.join(OF_ALL_SEEDS)} can be limited"
            remedy = "hydra.sweeper.seeds=[]"
        elif name in COSTS and limit < 0:
            what = f"got {limit:g}, expected a number of at least 0"
        elif name not in COSTS and mode_of(name, config.metrics) == "max":
            what = "is to be high, and a constraint is the largest value that a measure may have; "
            what += f"costs can be limited: {', '.join(COSTS)}"
        if what:
            yield Problem(f"hydra.sweeper.constraints.{name}", what, remedy)


def values_of(outcome: Outcome, goals: Sequence[Goal]) -> list[float] | None:
    """The values of the objectives; None: the job has not got them all."""
    if outcome.objective is None:
        return None
    more = [outcome.measures.get(goal.measure) for goal in goals[1:]]
    return None if None in more else [outcome.objective, *(value for value in more if value is not None)]


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a finished trial keeps all constraints."""
    return all(excess <= 0 for excess in trial.constraints.values())


def candidates(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of which one is the best: those that finished, keep all constraints, and have the most seeds."""
    feasible = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial)]
    seeds = [len(trial.user_attrs.get("values", ())) for trial in feasible]
    return [trial for trial, count in zip(feasible, seeds, strict=True) if count == max(seeds)]


def is_in_better_half(own: Sequence[Sequence[float]], others: Sequence[Sequence[Sequence[float]]], goal: Goal) -> bool:
    """Whether the mean of a config is in the better half of those with as many seeds; also if these are still few.

    Args:
        own: Its values: a list for each seed, which begins with the value of the goal.
        others: Of the other configs.
        goal: The objective.
    """
    count, sign = len(own), -1 if goal.lower_is_better else 1
    means = [fmean(seed[0] for seed in values[:count]) for values in others if len(values) >= count]
    mean = fmean(seed[0] for seed in own)
    better = sum(sign * other > sign * mean for other in means)
    return len(means) + 1 < COMPARED or better < (len(means) + 1) / 2
