"""Recorded runs: finding one, and what it left behind."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from experiments.config import Problem, Refused
from experiments.config.schema import Data, Tracking
from experiments.evaluation import lower_is_better
from experiments.tracking.record import quiet_mlflow
from experiments.tracking.store import lacks_run, problems, sqlite_file, store_uri


@dataclass(frozen=True)
class RecordedRun:
    """A finished run: its id, its name, the data that it was trained on, and the folder of its model."""

    run_id: str
    name: str
    data: Data
    model_folder: Path


def find_run(which: str, tracking: Tracking) -> RecordedRun:
    """Look up a run.

    Args:
        which: ``latest`` (finished), ``best`` (by the validation metric) or a run id.
        tracking: The store, and the MLflow experiment that latest and best are looked for in (empty: all).

    Raises:
        Refused: There is no such run, or it left no model.
    """
    uri = store_uri(tracking)
    if found := problems(tracking):  # MLflow itself would retry for minutes
        raise Refused([replace(problem, remedy="") for problem in found])
    if (file := sqlite_file(uri)) and not file.exists():
        raise Refused(
            Problem("run", f"nothing is recorded in {file}; train something first: python -m experiments.run")
        )
    finders = {"latest": _latest, "best": _best}
    if which not in finders and lacks_run(uri, which):
        raise _unknown(which)
    mlflow = quiet_mlflow()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    run = finders.get(which, _by_id)(client, which, tracking.experiment)
    return RecordedRun(run.info.run_id, run.info.run_name, _data(client, run), _model_folder(run))


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


def _search(client: Any, experiment: str, condition: str, order: str) -> Any:
    """The first finished run that fits, or None."""
    wanted = f"name = '{experiment}'" if experiment else None
    ids = [item.experiment_id for item in client.search_experiments(filter_string=wanted)]
    finished = f"attributes.status = 'FINISHED'{condition}"
    runs = client.search_runs(ids, filter_string=finished, order_by=[order], max_results=1) if ids else []
    return runs[0] if runs else None


def _latest(client: Any, which: str, experiment: str) -> Any:
    found = _search(client, experiment, "", "attributes.start_time DESC")
    if found is None:
        raise Refused(Problem("run", "no run has finished yet; train something first: python -m experiments.run"))
    return found


def _best(client: Any, which: str, experiment: str) -> Any:
    newest = _search(client, experiment, " and tags.objective LIKE 'val_%'", "attributes.start_time DESC")
    if newest is None:
        raise Refused(
            Problem(
                "run",
                "no run held out a validation set, and the test set must not choose a model; train with "
                "data.validation_size=0.1 to have a best, or name a run",
                "run=latest",
            )
        )
    # Only what can be compared: the same metric on the same data.
    alike = "".join(f" and tags.{key} = '{newest.data.tags[key]}'" for key in ("objective", "dataset"))
    direction = "ASC" if lower_is_better(newest.data.tags["objective"]) else "DESC"
    return _search(client, experiment, alike, f"metrics.objective {direction}")


def _by_id(client: Any, which: str, experiment: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(which)
    except MlflowException as error:
        raise _unknown(which) from error


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


def _model_folder(run: Any) -> Path:
    import mlflow

    try:
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model"))
    except (mlflow.MlflowException, OSError) as error:
        status = run.info.status
        raise Refused(Problem("run", f"{run.info.run_id} ({status}) left no model", "run=latest")) from error
