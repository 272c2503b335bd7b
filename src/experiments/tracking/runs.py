"""Recorded runs: finding one, and what it left behind."""

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from experiments.config import Problem, Refused
from experiments.config.schema import Data, Tracking
from experiments.evaluation import lower_is_better
from experiments.tracking import registry
from experiments.tracking.search import by_beginning, connect, experiment_ids, search, unknown
from experiments.tracking.store import existing, lacks_run


@dataclass(frozen=True)
class RecordedRun:
    """A finished run: its id, its name, the data that it was trained on, and its Keras model."""

    run_id: str
    name: str
    data: Data
    model_file: Path


def find_run(which: str, tracking: Tracking) -> RecordedRun:
    """Look up a run, and fetch its model.

    Raises:
        Refused: As `look_up`, and where the run left no model.
    """
    client, run = look_up(which, tracking)
    model = logged_model(client, run)
    return RecordedRun(run.info.run_id, run.info.run_name, _data(run.info.run_id), _model_file(model, run))


def look_up(which: str, tracking: Tracking, *, writing: bool = False) -> tuple[Any, Any]:
    """Look up a run as MLflow has it.

    Args:
        which: ``latest`` (finished), ``best`` (by the validation metric), a run id or its beginning, or
            ``NAME@ALIAS`` of the registry.
        tracking: The store, and the MLflow experiment that latest and best are looked for in (empty: all).
        writing: Whether something is to be written into the store.

    Returns:
        MLflow's client of the store, and the run.

    Raises:
        Refused: There is no such run.
    """
    uri = existing(tracking, "run", writing)
    finders = {"latest": _latest, "best": _best}
    if "@" in which:
        registry.refuse_unknown(uri, which)
    elif which not in finders and lacks_run(uri, which):
        raise Refused(unknown("run", which))
    client = connect(uri)
    run_id = registry.run_behind(client, which) if "@" in which else which
    return client, finders.get(which, _by_id)(client, run_id, tracking.experiment)


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


def own_classes(model_file: Path, trust: Sequence[str]) -> dict[str, str]:
    """Find the classes of a saved model that are not Keras's own: their modules, by name. Nothing is imported.

    Raises:
        Refused: One is not of a trusted package.
    """
    with zipfile.ZipFile(model_file) as archive:
        named = dict(_classes(json.loads(archive.read("config.json"))))
    own = {name: module for name, module in named.items() if not _within(module, ("keras", "builtins"))}
    foreign = sorted({module for module in own.values() if not _within(module, trust)})
    if foreign:
        packages = ",".join(sorted({module.partition(".")[0] for module in foreign}))
        what = f"the run's model needs the code of {', '.join(foreign)}; if you trust it, say so"
        raise Refused(Problem("trust", what, f"trust=[{packages}]"))
    return own


def _within(module: str, packages: Sequence[str]) -> bool:
    return f"{module}.".startswith(tuple(f"{package}." for package in packages))


def _classes(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(value.get("module"), str):
            yield str(value.get("class_name")), value["module"]
        for inner in value.values():
            yield from _classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(inner)


def count_alike(client: Any, run: Any, experiment: str, limit: int = 1000) -> int:
    """Count the finished runs that `best` compares a run with, itself included; at most `limit`."""
    return len(_search(client, experiment, _alike(run), "attributes.start_time DESC", limit))


def _search(client: Any, experiment: str, condition: str, order: str, limit: int = 1) -> list[Any]:
    """The first finished runs that fit."""
    ids = experiment_ids(client, experiment)
    return search(client, ids, f"attributes.status = 'FINISHED'{condition}", order, limit)


def _alike(run: Any) -> str:
    """Only what can be compared: the same metric on the same data."""
    return "".join(f" and tags.`{key}` = '{run.data.tags[key]}'" for key in ("objective", "dataset.digest"))


def _latest(client: Any, which: str, experiment: str) -> Any:
    if not (found := _search(client, experiment, "", "attributes.start_time DESC")):
        raise Refused(Problem("run", "no run has finished yet; train something first: python -m experiments.run"))
    return found[0]


def _best(client: Any, which: str, experiment: str) -> Any:
    newest = _search(client, experiment, " and tags.objective LIKE 'val_%'", "attributes.start_time DESC")
    if not newest:
        raise Refused(
            Problem(
                "run",
                "no run held out a validation set, and the test set must not choose a model; train with "
                "data.validation_size=0.1 to have a best, or name a run",
                "run=latest",
            )
        )
    direction = "ASC" if lower_is_better(newest[0].data.tags["objective"]) else "DESC"
    return _search(client, experiment, _alike(newest[0]), f"metrics.objective {direction}")[0]


def _by_id(client: Any, which: str, experiment: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(which)
    except MlflowException as error:
        if not re.fullmatch(r"[0-9a-f]{4,31}", which):
            raise Refused(unknown("run", which)) from error
    return by_beginning(client, experiment_ids(client, ""), which, "run")


def stored_config(run_id: str) -> dict[str, Any]:
    """The config of a run: plain data, which is checked before it is used, and never executed.

    Raises:
        Refused: It cannot be read.
    """
    try:
        plain = yaml.safe_load(stored_text(run_id, "config/config.yaml") or "")
    except yaml.YAMLError:
        plain = None
    if not isinstance(plain, dict):
        raise _not_ours(run_id)
    return plain


def stored_text(run_id: str, file: str) -> str | None:
    """A text among a run's artifacts; None if it is lost."""
    import mlflow

    try:
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}"))
    except (mlflow.MlflowException, OSError, UnicodeDecodeError):
        return None


def _data(run_id: str) -> Data:
    try:
        return Data.model_validate({**stored_config(run_id)["data"], "limit": None, "validation_size": 0})
    except (KeyError, TypeError, ValidationError) as error:
        raise _not_ours(run_id) from error


def _not_ours(run_id: str) -> Refused:
    return Refused(Problem("run", f"{run_id} has no readable config/config.yaml: not a run of ours"))


def _model_file(model: Any, run: Any) -> Path:
    """Not by ``runs:/ID/model``, for which MLflow lists all models of the experiment, and copies the files."""
    import mlflow

    try:
        return Path(mlflow.artifacts.download_artifacts(model.artifact_location), "data", "model.keras")
    except (mlflow.MlflowException, OSError) as error:
        raise _no_model(run) from error


def _no_model(run: Any) -> Refused:
    return Refused(Problem("run", f"{run.info.run_id} ({run.info.status}) left no model", "run=latest"))
