"""A recorded run, and all that it left behind."""

import base64
import html
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from experiments.config import Problem, Refused
from experiments.config.files import plain_yaml
from experiments.config.schema import Data
from experiments.data import checked_inputs
from experiments.data.images import is_picture, read_images, to_input
from experiments.engine import saved_models
from experiments.engine.saved_models import SavedModel
from experiments.task import names, of
from experiments.tracking.artifacts import stored_file, stored_text
from experiments.tracking.curves import NOT_LEARNED, ONCE
from experiments.tracking.places import local_folder
from experiments.tracking.search import measured, measures, reads_store, status

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


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
        """FINISHED, PRUNED, INFEASIBLE, FAILED, KILLED or RUNNING."""
        return status(self.stored)

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
        logged = [name for name in self.stored.data.metrics if not NOT_LEARNED.fullmatch(name)]
        points = {name: self.client.get_metric_history(self.run_id, name) for name in logged}
        return {
            name: sorted((point.step, measured(point.value)) for point in each if point.model_id is None)
            for name, each in points.items()
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

        place, uri = self.logged_model().artifact_location, self.client.tracking_uri
        here, fetch = local_folder(place, uri), mlflow.artifacts.download_artifacts
        try:
            folder = here or Path(fetch(place, dst_path=str(downloads), tracking_uri=uri))
        except (mlflow.MlflowException, OSError) as error:
            raise self._no_model() from error
        if not folder.is_dir():
            raise self._no_model()
        return SavedModel(folder / "data" / "model.keras", f"run {self.run_id}: {here or place}/data/model.keras")

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
            images: Files or pictures of any size; or an array (n, ...), or rows, of values as the data set has them,
                unscaled.
            inverted: Whether files and pictures show dark ink on light paper; ``"auto"``: whether their border is
                light.

        Returns:
            Probabilities (n, classes), or numbers (n,).

        Raises:
            Refused: There is no such file, the model does not take such inputs, or it cannot be used.
        """
        if isinstance(images, str | os.PathLike):
            images = [images]
        pictured = isinstance(images, list | tuple) and any(map(is_picture, images))
        x = None if pictured else checked_inputs(np.asarray(images), self.data.scale, "images")
        files = [os.fspath(image) for image in images if isinstance(image, str | os.PathLike)] if pictured else []
        read = read_images(files)  # now: what is not there need not wait for the imports
        with tempfile.TemporaryDirectory() as downloads:
            saved = self.saved_model(Path(downloads))
            model = saved_models.load(saved, self.trust)
            if x is None:
                pictures = (next(read) if isinstance(image, str | os.PathLike) else image for image in images)
                x = to_input(pictures, model.input_shape[1:], self.data, inverted)
            return saved_models.predict(saved, model, x, of(self.task), "images")

    def figures(self) -> dict[str, bytes]:
        """Its pictures, as PNG, by name; none, if they are lost."""
        listed = [item.path for item in self.client.list_artifacts(self.run_id, "figures")]
        found = {PurePosixPath(path).stem: stored_file(self.client, self.stored, path) for path in listed}
        return {name: content for name, content in found.items() if content}

    def _repr_html_(self) -> str:
        shown = {key: value for key, value in self.metrics.items() if not key.startswith("system/")}
        rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{value:.6g}</td></tr>" for key, value in shown.items())
        pictures = "".join(
            f'<img alt="{name}" style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            for name, png in self.figures().items()
        )
        head = f"run {self.run_id} <b>{html.escape(self.name)}</b> {self.status}"
        return f"<div>{head}</div><table>{rows}</table>{pictures}"

    def _not_ours(self) -> Refused:
        return Refused(Problem("run", f"{self.run_id} has no readable config/config.yaml: not a run of ours"))

    def _no_model(self) -> Refused:
        return Refused(Problem("run", f"{self.run_id} ({self.status}) left no model", "run=latest"))
