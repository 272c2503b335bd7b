"""One run in MLflow: parameters, tags, metrics, figures, model. Runs in the recording process."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from experiments.backend import imports
from experiments.config import Config
from experiments.config.objective import objective_of
from experiments.tracking import lock
from experiments.tracking.client import (
    end_run,
    experiment,
    import_keras_flavour,
    import_mlflow,
    import_what_is_used_late,
    open_existing_store,
    open_store,
)
from experiments.tracking.provenance import environment, origin, working_tree
from experiments.tracking.search import EARLIER_SECONDS, WENT_ON_AT, measures
from experiments.tracking.store import redact, redact_all

if TYPE_CHECKING:
    from experiments.evaluation import Report

MODEL_REQUIREMENTS = ("keras", "tensorflow", "numpy")
# MLflow's limits: characters of a parameter's value, and parameters of one request.
LONGEST_PARAMETER, PARAMETERS_A_BATCH = 6000, 100
# Of the config: what may hold passwords, or differs each time though the run is the same.
NOT_RECORDED: Any = {"tracking": {"uri", "parent", "run_name"}, "resume": True}


class Before(NamedTuple):
    """An earlier run of the same fingerprint.

    Attributes:
        objective: What it reached, if it finished.
        folder: Of its output.
        under_way: It is running now.
        processor: The model that it ran on.
        threads: How many it had.
    """

    run_id: str
    status: str
    objective: float
    folder: str = ""
    under_way: bool = False
    processor: str = ""
    threads: str = ""


class Record:
    """An MLflow run. Its methods are called in the order in which they stand here.

    Attributes:
        run_id: Empty until `start` has created the run.
        failure: What went wrong so far, in one of the calls.
    """

    def __init__(self, uri: str, own_process: bool) -> None:
        self.run_id = self.failure = ""
        self._uri = uri
        self._monitor: Any = None
        self._entered = int(time.time() * 1000)
        self._client: Any = None
        self._lock: Any = None
        self._recorded: set[tuple[str, int]] = set()  # metrics and steps that the run had before it was resumed
        self._has_model = False
        if own_process:
            # All imports at once, while the other process imports TensorFlow, and not while it waits for the end.
            with imports():
                import_mlflow()
                import_keras_flavour()
                import_what_is_used_late()

    def connect(self) -> None:
        """Open the store, or get ready to create it: a run that is refused yet must leave nothing."""
        self._client = open_existing_store(self._uri)

    def find_before(self, config: Config, wanted: str) -> Before | None:
        """Find the latest finished run with a fingerprint, else the latest that can go on.

        Beneath the same parent, if there is one. A run that can go on is kept from others from now on.
        """
        if self._client is None:
            return None
        condition = f"tags.fingerprint = '{wanted}'"
        if config.tracking.parent:
            condition += f" and tags.`mlflow.parentRunId` = '{config.tracking.parent}'"
        ids = [experiment(self._client, config.tracking.experiment, self._uri)]
        found = self._client.search_runs(ids, condition, max_results=100, order_by=["start_time DESC"])
        for run in found:
            if run.info.status == "FINISHED" and "objective" in (reached := measures(run)):
                return Before(
                    run.info.run_id,
                    run.info.status,
                    reached["objective"],
                    processor=run.data.tags.get("hardware.processor", ""),
                    threads=run.data.params.get("runtime.threads", ""),
                )
        left = [(run.info.run_id, folder) for run in found if (folder := self._left_here(run))]
        if not left:
            return None
        if config.tracking.parent:  # a sweep over what cannot matter has several, each for one of its workers
            for run_id, folder in left:
                if self._take_lock(folder, patience=0):
                    return self._before(run_id, folder)
        self._take_lock(left[0][1], lock.PATIENCE)
        return self._before(*left[0])

    def find_changed(self, config: Config, wanted: str) -> str:
        """Find the latest finished run of a config's own fingerprint, whatever else differs: its id, or nothing."""
        if self._client is None:
            return ""
        ids = [experiment(self._client, config.tracking.experiment, self._uri)]
        same = f"tags.`fingerprint.config` = '{wanted}' and attributes.status = 'FINISHED'"
        found = self._client.search_runs(ids, same, max_results=1, order_by=["start_time DESC"])
        return found[0].info.run_id if found else ""

    def _take_lock(self, folder: str, patience: float) -> bool:
        self._lock = lock.take(Path(folder, "lock"), patience)
        return self._lock is not None

    def _before(self, run_id: str, folder: str) -> Before:
        now = self._client.get_run(run_id)  # it may have been finished while we waited
        reached = measures(now).get("objective", math.nan)
        return Before(run_id, now.info.status, reached, folder, under_way=self._lock is None)

    def _left_here(self, run: Any) -> str:
        """The output folder of an interrupted run, if it can go on from there; the lock in it tells who is at work."""
        folder = str(run.data.tags.get("output_folder", ""))
        if not folder or not Path(folder).is_dir():
            return ""
        measured = any(not name.startswith("system/") for name in run.data.metrics)
        return folder if not measured or any(Path(folder).glob("checkpoints/*.npz")) else ""

    def start(
        self,
        config: Config,
        dataset: Mapping[str, Any],
        chosen: Mapping[str, Any],
        overrides: Sequence[str],
        identity: Mapping[str, str],
    ) -> None:
        """Create the run with its parameters, tags, data set and config."""
        import mlflow
        from mlflow.entities import Param

        if self._client is None:
            self._client = open_store(self._uri)
        experiment_id = experiment(self._client, config.tracking.experiment, self._uri)
        mlflow.set_experiment(experiment_id=experiment_id)  # where `log_model` puts the model
        run = self._client.create_run(
            experiment_id,
            start_time=self._entered,
            run_name=redact(config.tracking.run_name or run_name(overrides)),
            tags={**_tags(config, dataset, overrides), **identity},
        )
        self.run_id = run.info.run_id
        if self._lock is None:
            self._take_lock(identity["output_folder"], lock.PATIENCE)
        recorded = redact_all(config.model_dump(exclude=NOT_RECORDED, exclude_unset=True))
        parameters = flatten({**recorded, "runtime": dict(chosen)})
        listed = [Param(key, as_parameter(value)) for key, value in parameters.items()]
        for start in range(0, len(listed), PARAMETERS_A_BATCH):
            self._client.log_batch(self.run_id, params=listed[start : start + PARAMETERS_A_BATCH])
        self._client.log_inputs(self.run_id, [_dataset_input(dataset)])
        self._client.log_text(self.run_id, OmegaConf.to_yaml(recorded), "config/config.yaml")
        self._client.log_text(self.run_id, "".join(f"{line}\n" for line in overrides), "config/overrides.txt")
        self._client.log_text(self.run_id, environment(), "environment.txt")
        if config.tracking.code and (tree := working_tree()) and tree.patch:
            self._client.log_text(self.run_id, tree.patch, "code/uncommitted.patch")
        self._watch_system(config, resumed=False)

    def go_on(self, config: Config, run_id: str, process: str) -> None:
        """Open an interrupted run again. What it has recorded stays, and is not recorded twice."""
        import mlflow

        mlflow.set_experiment(experiment_id=experiment(self._client, config.tracking.experiment, self._uri))
        self.run_id = run_id
        run = self._client.get_run(run_id)
        began = last = int(run.data.tags.get(WENT_ON_AT, run.info.start_time))
        for name in run.data.metrics:
            if not name.startswith("system/"):
                history = self._client.get_metric_history(run_id, name)
                self._recorded.update((name, point.step) for point in history)
                last = max([last, *(point.timestamp for point in history)])
        models = [
            self._client.get_logged_model(each.model_id) for each in (run.outputs and run.outputs.model_outputs) or ()
        ]
        self._has_model = any(model.status == "READY" for model in models)
        if "failure" in run.data.tags:
            self._client.delete_tag(run_id, "failure")
        # What an attempt did after its last record is lost, and how long it took may be unknown: it was killed.
        earlier = float(run.data.tags.get(EARLIER_SECONDS, "0")) + (last - began) / 1000
        self._client.set_tag(run_id, EARLIER_SECONDS, str(earlier))
        self._client.set_tag(run_id, WENT_ON_AT, str(self._entered))
        self._client.set_tag(run_id, "process", process)
        self._client.set_tag(run_id, "resumed", str(int(run.data.tags.get("resumed", "0")) + 1))
        self._client.update_run(run_id, status="RUNNING")
        self._watch_system(config, resumed=True)

    def _watch_system(self, config: Config, resumed: bool) -> None:
        if config.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, sampling_interval=1, resume_logging=resumed)
            self._monitor.start()

    def _unwatch_system(self) -> None:
        if self._monitor:
            from mlflow.exceptions import MlflowException

            self._monitor.finish()  # drops the interval under way, which is all there is of a short run
            with contextlib.suppress(MlflowException):  # the end of the run is worth more
                self._monitor.collect_metrics()
                self._monitor.publish_metrics(self._monitor.aggregate_metrics())
                self._monitor.mlflow_logger.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step, in one batch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {key: value for key, value in metrics.items() if (key, step) not in self._recorded}
        self._client.log_batch(self.run_id, [Metric(key, float(value), now, step) for key, value in new.items()])

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add tags."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_report(self, history: Mapping[str, Sequence[float]], report: "Report") -> None:
        """Write ``report.json`` and draw ``figures/``."""
        from experiments import figures

        self._client.log_text(self.run_id, json.dumps(report.as_json(), indent=2), "report.json")
        for name, figure in figures.draw(history, report).items():
            self._client.log_figure(self.run_id, figure, f"figures/{name}.png", save_kwargs=figures.SAVED)

    def log_model(self, file: str, example: Any, classes: int, step: int) -> None:
        """Log a saved Keras model as ``model``, with signature and input example."""
        if self._has_model:  # the run died after it had logged it
            Path(file).unlink()
            return
        import mlflow.keras
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        def save_model(path: str, validate_serving_input: bool, **arguments: Any) -> None:
            os.makedirs(path)  # MLflow forgets to, where there is an input example (mlflow/mlflow#16183)
            saved = SimpleNamespace(save=lambda destination: shutil.move(file, destination))
            mlflow.keras.save_model(saved, path, **arguments)

        inputs, outputs = (-1, *example.shape[1:]), (-1, classes)
        Model.log(
            artifact_path=None,
            name="model",
            flavor=SimpleNamespace(save_model=save_model, __name__=mlflow.keras.__name__),
            run_id=self.run_id,
            step=step,  # the model's page shows the run's metrics of this step
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype(np.float32), inputs)]), Schema([TensorSpec(np.dtype(np.float32), outputs)])
            ),
            input_example=example,
            validate_serving_input=False,  # would load the model again; a test serves one instead
            # Explicit: to find them out, MLflow would start a process that imports TensorFlow once more.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in MODEL_REQUIREMENTS],
        )

    def end(self, status: str, trace: str) -> str:
        """Set the run's final status; a traceback becomes ``traceback.txt``. Return the run's id.

        Of a run that finished, but could not be recorded whole, that is FAILED: it can be resumed.
        """
        if self.failure and status == "FINISHED":
            status, trace = "FAILED", f"{self.failure}\n"
        self._unwatch_system()
        if self.run_id:
            end_run(self._client, self.run_id, status, trace)
        if self._lock:
            if status == "FINISHED":
                Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()
        return self.run_id

    def abandon(self) -> None:
        """End the run of a training process that is gone."""
        self.end("FAILED", "The training process died without a word: killed, or out of memory.\n")


def run_name(overrides: Sequence[str], limit: int = 120) -> str:
    """Name a run by what was overridden, so that the runs of a comparison differ by name."""
    telling = [item.lstrip("+") for item in overrides if not item.lstrip("+~").startswith(("tracking", "trust"))]
    name = " ".join(telling) or "reference"
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: ``{"optimizer.learning_rate": 0.001}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_parameter(value: Any) -> str:
    """Write a value of the config as MLflow stores it.

    A text that is too long ends with a digest of the whole. MLflow would only cut it, and `compare` would take two
    models that differ late for one.
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if len(text) <= LONGEST_PARAMETER:
        return text
    digest = f"… sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text[: LONGEST_PARAMETER - len(digest)] + digest


def _tags(config: Config, dataset: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    objective = objective_of(config, dataset["digest"])
    return {
        **origin(config.tracking, overrides, "python -m experiments.run"),
        "objective": objective.metric,
        "objective.mode": objective.mode,
        "measured_as": objective.measured_as,
        "dataset": dataset["name"],
        "dataset.digest": dataset["digest"],
        **({"mlflow.parentRunId": config.tracking.parent} if config.tracking.parent else {}),
    }


def _dataset_input(dataset: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = Dataset(
        name=dataset["name"],
        digest=dataset["digest"][:32],  # MLflow takes 36 characters; the whole digest is a tag
        source_type="local",
        source=json.dumps({"uri": dataset["source"]}),
        profile=json.dumps(dataset["profile"]),
    )
    return DatasetInput(described, [InputTag("mlflow.data.context", "training")])
