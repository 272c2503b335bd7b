"""Recorded runs: finding one, and all that it left behind."""

import base64
import html
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from experiments.config import Config, Problem, Refused
from experiments.config.checks import find_problems
from experiments.config.files import plain_value, plain_yaml
from experiments.config.keras_names import is_within
from experiments.config.schema import Data, Tracking
from experiments.data import scaled
from experiments.data.images import read_images, to_input
from experiments.engine import saved_models
from experiments.engine.saved_models import SavedModel
from experiments.ranking.comparison import Comparison, Run, Standing, best_run
from experiments.task import names, of
from experiments.tracking import registry
from experiments.tracking.artifacts import stored_file, stored_text
from experiments.tracking.leftovers import connect
from experiments.tracking.places import local_folder
from experiments.tracking.search import (
    SHORTEST_ID,
    by_beginning,
    experiment_ids,
    measured,
    measures,
    reads_store,
    refuse_damaged,
    search,
    unknown,
)
from experiments.tracking.selection import ONCE, comparable_with_newest
from experiments.tracking.store import existing

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

# What a run measures of the machine, not of the model.
TIMINGS = ("fit_seconds", "samples_per_second")


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """A run as it is recorded, and what it left behind; that is read when it is asked for.

    Attributes:
        client: MLflow's, of its store.
        stored: The run as MLflow has it.
        chosen: How it was chosen, in words.
        trust: Packages whose classes its config and model may name. What the record says about that does not count.
    """

    client: Any
    stored: Any
    chosen: str = "by its id"
    trust: Sequence[str] = ()

    def __repr__(self) -> str:
        measured = "".join(f", {key}={value:.4f}" for key, value in self.metrics.items() if key.startswith("test_"))
        return f"<run {self.run_id} {self.name!r}: {self.status}{measured}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedRun) and other.run_id == self.run_id

    def __hash__(self) -> int:
        return hash(self.run_id)

    @property
    def run_id(self) -> str:
        """MLflow's id."""
        return str(self.stored.info.run_id)

    @property
    def name(self) -> str:
        """What was overridden, or what ``tracking.run_name`` said."""
        return str(self.stored.info.run_name or "")

    @property
    def status(self) -> str:
        """FINISHED, FAILED, KILLED or RUNNING."""
        return str(self.stored.info.status)

    @property
    def tags(self) -> Mapping[str, str]:
        """Where it comes from, what it is ranked by, what is hashed of it."""
        return self.stored.data.tags  # type: ignore[no-any-return]

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return measures(self.stored)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config: plain data, which is checked before it is used, and never executed.

        Raises:
            Refused: It cannot be read.
        """
        try:
            plain = plain_yaml(stored_text(self.client, self.stored, "config/config.yaml") or "")
        except Exception as error:  # whatever the parser raises: digits without end, deep nesting, …
            raise self._not_ours() from error
        if not isinstance(plain, dict):
            raise self._not_ours()
        return plain

    @cached_property
    @reads_store
    def histories(self) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of every metric of the model, in the order of steps; steps are counted from 0."""
        measured_names = [
            name for name in self.stored.data.metrics if name not in TIMINGS and not name.startswith("system/")
        ]
        points = {name: self.client.get_metric_history(self.run_id, name) for name in measured_names}
        return {
            name: sorted((point.step, measured(point.value)) for point in points[name] if point.model_id is None)
            for name in measured_names
        }

    @property
    def curves(self) -> "pd.DataFrame":
        """The metrics that were measured after each epoch: a row an epoch, counted from 1."""
        import pandas as pd

        columns = {
            name: pd.Series({step + 1: value for step, value in points}, dtype=float)
            for name, points in self.histories.items()
            if not ONCE.fullmatch(name)
        }
        return pd.DataFrame(columns).rename_axis(index="epoch")

    @property
    def environment(self) -> str:
        """The packages that were installed; empty if that is lost."""
        return stored_text(self.client, self.stored, "environment.txt") or ""

    @property
    def data(self) -> Data:
        """What it was trained on, whole: without a limit, and with no part held out.

        Raises:
            Refused: The config does not say.
        """
        try:
            return Data.model_validate({**self.config["data"], "limit": None, "validation_size": 0})
        except (KeyError, TypeError, ValidationError) as error:
            raise self._not_ours() from error

    @property
    def task(self) -> str:
        """What it has learned: classification or regression.

        Raises:
            Refused: The config names no task that there is.
        """
        section = self.config.get("task", {"name": "classification"})  # older runs do not say
        if not isinstance(section, dict) or section.get("name") not in names():
            raise self._not_ours()
        return str(section["name"])

    def checked_config(self, data_path: str | None = None) -> Config:
        """Its config as it would be trained again: with the choices that ``runtime: auto`` became, and not recorded.

        Args:
            data_path: Where the data lies now; None: where the config says.

        Raises:
            Refused: It is no longer a valid one, or names classes of packages that are not trusted.
        """
        plain = dict(self.config)
        named = {key: value for key, value in plain.items() if key != "trust"}
        if untrusted := sorted(
            {name for name in _own_names(named, self.trusted_then) if not is_within(name, self.trust)}
        ):
            packages = ",".join(sorted({name.partition(".")[0] for name in untrusted}))
            what = f"the run {self.run_id[:8]} needs the code of {', '.join(untrusted)}; if you trust it, say so"
            raise Refused(Problem("trust", what, f"trust=[{packages}]"))
        parameters = self.stored.data.params
        chosen = {key.partition(".")[2]: value for key, value in parameters.items() if key.startswith("runtime.")}
        plain |= {"trust": list(self.trust), "tracking": {"enabled": False}, "resume": False}
        plain["runtime"] = {key: plain_value(value) for key, value in chosen.items()} | {"checkpoint_every": "auto"}
        if data_path and isinstance(plain.get("data"), dict):
            plain["data"] = {**plain["data"], "path": data_path}
        if problems := find_problems(plain, Config, {}):
            where = f"run {self.run_id[:8]}: config/config.yaml"
            raise Refused([Problem(f"{where}: {problem.where}", problem.what) for problem in problems])
        return Config.model_validate(plain)

    @property
    def trusted_then(self) -> list[str]:
        """The packages that were trusted when it was made. It grants nothing."""
        listed = self.config.get("trust")
        texts = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        return [name for name in texts if all(part.isidentifier() for part in name.split("."))]

    @reads_store
    def logged_model(self) -> Any:
        """The model that it logged, as MLflow has it; the last, if it was interrupted after its model and resumed.

        Raises:
            Refused: It left none.
        """
        outputs = self.stored.outputs.model_outputs if self.stored.outputs else []
        models = [self.client.get_logged_model(each.model_id) for each in sorted(outputs, key=lambda each: each.step)]
        if not (complete := [model for model in models if model.name == "model" and model.status == "READY"]):
            raise self._no_model()
        return complete[-1]

    def saved_model(self, downloads: Path) -> SavedModel:
        """The file of its model; one that lies elsewhere is fetched into a folder.

        Not by ``runs:/ID/model``, for which MLflow lists all models of the experiment, and copies the files.

        Raises:
            Refused: It left none.
        """
        import mlflow

        place = self.logged_model().artifact_location
        folder = local_folder(place, self.client.tracking_uri)
        shown = folder or place
        try:
            folder = folder or Path(
                mlflow.artifacts.download_artifacts(
                    place, dst_path=str(downloads), tracking_uri=self.client.tracking_uri
                )
            )
        except (mlflow.MlflowException, OSError) as error:
            raise self._no_model() from error
        if not folder.is_dir():
            raise self._no_model()
        return SavedModel(folder / "data" / "model.keras", f"run {self.run_id}: {shown}/data/model.keras")

    def model(self) -> Any:
        """Its Keras model, loaded, not compiled.

        Raises:
            Refused: It left none, or one that cannot be used.
        """
        with tempfile.TemporaryDirectory() as downloads:
            return saved_models.load(self.saved_model(Path(downloads)), self.trust)

    def predict(
        self, images: "Sequence[str | Path | Image.Image] | NDArray[Any]", inverted: bool | str = "auto"
    ) -> NDArray[np.floating]:
        """Classify images, prepared and scaled as those that it was trained on.

        Args:
            images: Files or pictures of any size; or an array (n, ...) of values as the data set has them, unscaled.
            inverted: Whether files and pictures show dark ink on light paper; ``"auto"``: whether their border is
                light.

        Returns:
            Probabilities (n, classes), or numbers (n,).

        Raises:
            Refused: There is no such file, the model does not take such inputs, or it cannot be used.
        """
        files = [os.fspath(image) for image in images if isinstance(image, str | os.PathLike)]
        read = read_images(files)  # now: what is not there need not wait for the imports
        with tempfile.TemporaryDirectory() as downloads:
            saved = self.saved_model(Path(downloads))
            model = saved_models.load(saved, self.trust)
            if isinstance(images, np.ndarray):
                x = scaled(images, self.data.scale)
            else:
                pictures = (next(read) if isinstance(image, str | os.PathLike) else image for image in images)
                x = to_input(pictures, model.input_shape[1:], self.data, inverted)
            return saved_models.predict(saved, model, x, of(self.task))

    def figures(self) -> dict[str, bytes]:
        """Its pictures, as PNG, by name; none, if they are lost."""
        listed = [item.path for item in self.client.list_artifacts(self.run_id, "figures")]
        found = {PurePosixPath(path).stem: stored_file(self.client, self.stored, path) for path in listed}
        return {name: content for name, content in found.items() if content}

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{value:.6g}</td></tr>" for key, value in self._shown())
        pictures = "".join(
            f'<img alt="{name}" style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            for name, png in self.figures().items()
        )
        head = f"run {self.run_id} <b>{html.escape(self.name)}</b> {self.status}"
        return f"<div>{head}</div><table>{rows}</table>{pictures}"

    def _shown(self) -> Iterator[tuple[str, float]]:
        return ((key, value) for key, value in self.metrics.items() if not key.startswith("system/"))

    def _not_ours(self) -> Refused:
        return Refused(Problem("run", f"{self.run_id} has no readable config/config.yaml: not a run of ours"))

    def _no_model(self) -> Refused:
        return Refused(Problem("run", f"{self.run_id} ({self.status}) left no model", "run=latest"))


def finished(run: RecordedRun) -> RecordedRun:
    """The run, if it finished.

    Raises:
        Refused: It did not.
    """
    if run.status != "FINISHED":
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
    found = [run for run in latest if "sweep" not in run.data.tags]  # whose runs may all be older
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
    if (best := best_run(comparison)) is None:
        what = f"none of the runs measured as {comparison.measured_as} has a finite result"
        raise Refused(Problem("run", what, "run=latest"))
    return RecordedRun(client, client.get_run(best[1].run_id), _described(comparison, *best))


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


def _by_id(client: Any, which: str, experiment: str) -> RecordedRun:
    from mlflow.exceptions import MlflowException

    try:
        return RecordedRun(client, client.get_run(which), "by its id")
    except MlflowException as error:
        if not re.fullmatch(r"[0-9a-f]{4,31}", which):
            raise Refused(unknown("run", which)) from error
    found = by_beginning(client, experiment_ids(client, ""), which, "run")  # without its model, on older servers
    return RecordedRun(client, client.get_run(found.info.run_id), "by its id")


def _own_names(value: Any, packages: Sequence[str]) -> Iterator[str]:
    """Find the classes of packages that a stored config names."""
    if isinstance(value, str) and "." in value and is_within(value, packages):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _own_names(inner, packages)
    if isinstance(value, dict):
        yield from _own_names([key for key in value if isinstance(key, str)], packages)
