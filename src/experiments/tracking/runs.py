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
from experiments.tracking.client import import_mlflow
from experiments.tracking.store import existing, lacks_run


@dataclass(frozen=True)
class RecordedRun:
    """A finished run: its id, its name, the data that it was trained on, and the folder of its model."""

    run_id: str
    name: str
    data: Data
    model_folder: Path


def find_run(which: str, tracking: Tracking) -> RecordedRun:
    """Look up a run, and fetch its model.

    Raises:
        Refused: As `look_up`, and where the run left no model.
    """
    client, run = look_up(which, tracking)
    model = logged_model(client, run)
    return RecordedRun(run.info.run_id, run.info.run_name, _data(client, run), _model_folder(model, run))


def look_up(which: str, tracking: Tracking) -> tuple[Any, Any]:
    """Look up a run as MLflow has it.

    Args:
        which: ``latest`` (finished), ``best`` (by the validation metric), a run id or its beginning, or
            ``NAME@ALIAS`` of the registry.
        tracking: The store, and the MLflow experiment that latest and best are looked for in (empty: all).

    Returns:
        MLflow's client of the store, and the run.

    Raises:
        Refused: There is no such run.
    """
    uri = existing(tracking, "run")
    finders = {"latest": _latest, "best": _best}
    if "@" in which:
        registry.refuse_unknown(uri, which)
    elif which not in finders and lacks_run(uri, which):
        raise _unknown(which)
    mlflow = import_mlflow()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri, registry_uri=uri)
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


def own_classes(model_folder: Path, trust: Sequence[str]) -> dict[str, str]:
    """Find the classes of a saved model that are not Keras's own: their modules, by name. Nothing is imported.

    Raises:
        Refused: One is not of a trusted package.
    """
    with zipfile.ZipFile(model_folder / "data" / "model.keras") as archive:
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
    wanted = f"name = '{experiment}'" if experiment else None
    ids = [item.experiment_id for item in client.search_experiments(filter_string=wanted)]
    finished = f"attributes.status = 'FINISHED'{condition}"
    return list(client.search_runs(ids, filter_string=finished, order_by=[order], max_results=limit)) if ids else []


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
            raise _unknown(which) from error
    experiments = [item.experiment_id for item in client.search_experiments()]
    found = client.search_runs(experiments, f"attributes.run_id LIKE '{which}%'", max_results=2)
    if len(found) > 1:
        raise Refused(Problem("run", f"{which} is the beginning of several ids; write more of it"))
    if not found:
        raise _unknown(which)
    return client.get_run(found[0].info.run_id)


def _unknown(which: str) -> Refused:
    return Refused(Problem("run", f"there is no run {which!r} in this store", "run=latest"))


def _data(client: Any, run: Any) -> Data:
    """The stored config is data: it is read and checked, never executed."""
    import mlflow

    try:
        text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/config/config.yaml")
        stored = yaml.safe_load(text)["data"]
        return Data.model_validate({**stored, "limit": None, "validation_size": 0})
    except (mlflow.MlflowException, OSError, KeyError, TypeError, yaml.YAMLError, ValidationError) as error:
        raise Refused(
            Problem("run", f"{run.info.run_id} has no readable config/config.yaml: not a run of ours")
        ) from error


def _model_folder(model: Any, run: Any) -> Path:
    """Not by ``runs:/ID/model``, for which MLflow lists all models of the experiment, and copies the files."""
    import mlflow

    try:
        return Path(mlflow.artifacts.download_artifacts(model.artifact_location))
    except (mlflow.MlflowException, OSError) as error:
        raise _no_model(run) from error


def _no_model(run: Any) -> Refused:
    return Refused(Problem("run", f"{run.info.run_id} ({run.info.status}) left no model", "run=latest"))
