"""Finding one recorded run: the latest, the best, by its id, or by its name in the registry."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments.config import Problem, Refused
from experiments.config.schema import Tracking
from experiments.ranking.comparison import Comparison, best_runs
from experiments.tracking import registry
from experiments.tracking.leftovers import connect
from experiments.tracking.recorded_run import RecordedRun
from experiments.tracking.search import (
    SHORTEST_ID,
    by_beginning,
    experiment_ids,
    reads_store,
    refuse_damaged,
    search,
    status,
    unknown,
)
from experiments.tracking.selection import comparable_with_newest
from experiments.tracking.store import existing
from experiments.tracking.summary import ENDED_WELL


def finished(run: RecordedRun) -> RecordedRun:
    """The run, if it finished.

    Raises:
        Refused: It did not.
    """
    if run.status not in ENDED_WELL:
        what = f"{run.run_id} is {run.status}: there is no result to compare with"
        raise Refused(Problem("run", what, "run=latest"))
    return run


@reads_store
def look_up(which: str, tracking: Tracking, *, trust: Sequence[str] = (), writing: bool = False) -> RecordedRun:
    """Look up a run.

    Args:
        which: ``latest`` (finished), ``best``, a run id or its beginning, or ``NAME@ALIAS`` of the registry.
            ``best`` means: among the runs that can be compared with the newest one that held out a validation set, the
            config with the best mean over its seeds, and of its runs the best one.
        tracking: The store, and the MLflow experiment that latest and best are looked for in (empty: all).
        trust: Packages whose classes its config and model may name.
        writing: Whether something is to be written into the store.

    Raises:
        Refused: There is no such run.
    """
    uri = existing(tracking, "run", writing)
    finders = {"latest": _latest, "best": _best}
    if len(which) < SHORTEST_ID:
        raise Refused(unknown("run", which))
    client = connect(uri)
    run_id = registry.run_behind(client, which) if "@" in which else which
    found = finders.get(which, _by_id)(client, run_id, tracking.experiment)
    refuse_damaged(found.stored)
    if "sweep" in found.tags:
        what = f"{found.run_id} is a sweep; choose one of its runs, which python -m experiments.compare lists"
        raise Refused(Problem("run", what, "run=best"))
    return replace(found, trust=trust, **({"chosen": f"as {which}"} if "@" in which else {}))


def _latest(client: Any, which: str, experiment: str) -> RecordedRun:
    ids = experiment_ids(client, experiment)
    latest = search(client, ids, "attributes.status = 'FINISHED'", "attributes.start_time DESC", limit=100)
    found = [run for run in latest if "sweep" not in run.data.tags and status(run) == "FINISHED"]
    if not found:
        raise Refused(Problem("run", "no run has finished yet; train something first: python -m experiments.run"))
    return RecordedRun(client, client.get_run(found[0].info.run_id), "as the latest")


def _best(client: Any, which: str, experiment: str) -> RecordedRun:
    comparison = comparable_with_newest(client, experiment_ids(client, experiment))
    if comparison is None:
        raise Refused(
            Problem(
                "run",
                "no run held out a validation set, and the test set must not choose a model; train with "
                "data.validation_size=0.1 to have a best, or name a run",
                "run=latest",
            )
        )
    best = best_runs(comparison)
    if best.empty:
        what = f"none of the runs measured as {comparison.measured_as} has a finite result"
        raise Refused(Problem("run", what, "run=latest"))
    # A config with one seed counts only where none has two.
    rank = (comparison.configs["n"] > 1).idxmax()
    [run_id] = best["run_id"][best["rank"] == rank]
    return RecordedRun(client, client.get_run(run_id), _described(comparison, rank))


def _described(comparison: Comparison, rank: int) -> str:
    """How the best run was chosen, in words."""
    if len(comparison.runs) == 1:
        return f"as the only run measured as {comparison.measured_as}"
    runs, configs = _counted(len(comparison.runs), "run"), _counted(len(comparison.configs), "config")
    config = comparison.configs.loc[rank]
    mean = f"mean {config['mean']:.4f} over {_counted(config['n'], 'seed')}"
    return f"as the best of {runs} of {configs}, by {comparison.measured_as}: its config has the best mean ({mean})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _by_id(client: Any, which: str, experiment: str) -> RecordedRun:
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"[0-9a-f]{4,31}", which):
        which = by_beginning(client, experiment_ids(client, ""), which, "run").info.run_id
    try:
        return RecordedRun(client, client.get_run(which))
    except MlflowException as error:
        raise Refused(unknown("run", which)) from error
