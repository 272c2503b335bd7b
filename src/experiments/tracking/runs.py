"""Recorded runs: finding one, and what it left behind."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from experiments.comparison import Comparison, Run, Standing, best_run
from experiments.config import Problem, Refused
from experiments.config.schema import Data, Tracking
from experiments.tracking import registry
from experiments.tracking.artifacts import SavedModel, plain_yaml, stored_text
from experiments.tracking.leftovers import connect
from experiments.tracking.places import local_folder
from experiments.tracking.search import (
    SHORTEST_ID,
    by_beginning,
    experiment_ids,
    reads_store,
    refuse_damaged,
    search,
    unknown,
)
from experiments.tracking.selection import comparable_with_newest
from experiments.tracking.store import existing, lacks_run


@dataclass(frozen=True)
class RecordedRun:
    """A finished run: its id, its name, how it was chosen, the data it was trained on, and its Keras model."""

    run_id: str
    name: str
    chosen: str
    data: Data
    model: SavedModel


class Found(NamedTuple):
    """A run as MLflow has it, with MLflow's client of its store, and how it was chosen, in words."""

    client: Any
    run: Any
    chosen: str


@reads_store
def find_run(which: str, tracking: Tracking, downloads: Path) -> RecordedRun:
    """Look up a run, and fetch its model.

    Args:
        which: See `look_up`.
        tracking: The store.
        downloads: A folder for a model that lies elsewhere; one on this machine is read where it is.

    Raises:
        Refused: As `look_up`, and where the run left no model.
    """
    client, run, chosen = look_up(which, tracking)
    saved = _saved_model(logged_model(client, run), run, downloads)
    return RecordedRun(run.info.run_id, run.info.run_name, chosen, _data(run.info.run_id), saved)


@reads_store
def look_up(which: str, tracking: Tracking, *, writing: bool = False) -> Found:
    """Look up a run as MLflow has it.

    Args:
        which: ``latest`` (finished), ``best``, a run id or its beginning, or ``NAME@ALIAS`` of the registry.
            ``best`` means: among the runs that can be compared with the newest one that held out a validation set, the
            config with the best mean over its seeds, and of its runs the best one.
        tracking: The store, and the MLflow experiment that latest and best are looked for in (empty: all).
        writing: Whether something is to be written into the store.

    Raises:
        Refused: There is no such run.
    """
    uri = existing(tracking, "run", writing)
    finders = {"latest": _latest, "best": _best}
    if "@" in which:
        registry.refuse_unknown(uri, which)
    elif which not in finders and (len(which) < SHORTEST_ID or lacks_run(uri, which)):
        raise Refused(unknown("run", which))
    client = connect(uri)
    run_id = registry.run_behind(client, which) if "@" in which else which
    found = finders.get(which, _by_id)(client, run_id, tracking.experiment)
    refuse_damaged(found.run)
    if "sweep" in found.run.data.tags:
        what = f"{found.run.info.run_id} is a sweep; choose one of its runs, which python -m experiments.compare lists"
        raise Refused(Problem("run", what, "run=best"))
    return found._replace(chosen=f"as {which}") if "@" in which else found


@reads_store
def logged_model(client: Any, run: Any) -> Any:
    """Find the model that a run logged; the last, if the run was interrupted after its model and resumed.

    Raises:
        Refused: It left none.
    """
    outputs = sorted(run.outputs.model_outputs, key=lambda output: output.step) if run.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    if not (complete := [model for model in models if model.name == "model" and model.status == "READY"]):
        raise _no_model(run)
    return complete[-1]


def _latest(client: Any, which: str, experiment: str) -> Found:
    ids = experiment_ids(client, experiment)
    latest = search(client, ids, "attributes.status = 'FINISHED'", "attributes.start_time DESC", limit=100)
    found = [run for run in latest if "sweep" not in run.data.tags]  # whose runs may all be older
    if not found:
        raise Refused(Problem("run", "no run has finished yet; train something first: python -m experiments.run"))
    return Found(client, found[0], "as the latest")


def _best(client: Any, which: str, experiment: str) -> Found:
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
    if (best := best_run(comparison)) is None:
        what = f"none of the runs measured as {comparison.measured_as} has a finite result"
        raise Refused(Problem("run", what, "run=latest"))
    return Found(client, client.get_run(best[1].run_id), _described(comparison, *best))


def _described(comparison: Comparison, config: Standing, run: Run) -> str:
    """How the best run was chosen, in words."""
    count = sum(len(standing.runs) for standing in comparison.standings)
    if count == 1:
        return f"as the only run measured as {comparison.measured_as}"
    runs, configs = _counted(count, "run"), _counted(len(comparison.standings), "config")
    mean = f"mean {config.mean:.4f} over {_counted(len(config.runs), 'seed')}"
    return f"as the best of {runs} of {configs}, by {comparison.measured_as}: its config has the best mean ({mean})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _by_id(client: Any, which: str, experiment: str) -> Found:
    from mlflow.exceptions import MlflowException

    try:
        return Found(client, client.get_run(which), "by its id")
    except MlflowException as error:
        if not re.fullmatch(r"[0-9a-f]{4,31}", which):
            raise Refused(unknown("run", which)) from error
    return Found(client, by_beginning(client, experiment_ids(client, ""), which, "run"), "by its id")


def stored_config(run_id: str) -> dict[str, Any]:
    """The config of a run: plain data, which is checked before it is used, and never executed.

    Raises:
        Refused: It cannot be read.
    """
    try:
        plain = plain_yaml(stored_text(run_id, "config/config.yaml") or "")
    except Exception as error:  # whatever the parser raises: digits without end, deep nesting, …
        raise _not_ours(run_id) from error
    if not isinstance(plain, dict):
        raise _not_ours(run_id)
    return plain


def _data(run_id: str) -> Data:
    try:
        return Data.model_validate({**stored_config(run_id)["data"], "limit": None, "validation_size": 0})
    except (KeyError, TypeError, ValidationError) as error:
        raise _not_ours(run_id) from error


def _not_ours(run_id: str) -> Refused:
    return Refused(Problem("run", f"{run_id} has no readable config/config.yaml: not a run of ours"))


def _saved_model(model: Any, run: Any, downloads: Path) -> SavedModel:
    """Not by ``runs:/ID/model``, for which MLflow lists all models of the experiment, and copies the files."""
    import mlflow

    place = model.artifact_location
    folder = local_folder(place, mlflow.get_tracking_uri())
    shown = folder or place
    try:
        folder = folder or Path(mlflow.artifacts.download_artifacts(place, dst_path=str(downloads)))
    except (mlflow.MlflowException, OSError) as error:
        raise _no_model(run) from error
    if not folder.is_dir():
        raise _no_model(run)
    return SavedModel(folder / "data" / "model.keras", f"run {run.info.run_id}: {shown}/data/model.keras")


def _no_model(run: Any) -> Refused:
    return Refused(Problem("run", f"{run.info.run_id} ({run.info.status}) left no model", "run=latest"))
