"""What a search chooses by."""

from collections.abc import Sequence

from experiments.config import Problem, Refused
from experiments.config.objective import Objective, objective_of
from experiments.sweeps.jobs import Job


def same_objective(jobs: Sequence[Job]) -> Objective:
    """The objective of all jobs.

    Raises:
        Refused: They have several, or it is measured on the test set.
    """
    objectives = {objective_of(job.config, "").measured_as: objective_of(job.config, "") for job in jobs}
    if len(objectives) > 1:
        listed = "; ".join(objectives)
        raise Refused(Problem("objective", f"a search needs one for all of its trials, got several: {listed}"))
    [objective] = objectives.values()
    if objective.metric.startswith("test_"):
        what = f"got {objective.metric}, but a search chooses by it, and the test set must not choose a model"
        held_out = jobs[0].config.validates
        raise Refused(Problem("objective", what, "objective=auto" if held_out else "data.validation_size=0.1"))
    return objective
