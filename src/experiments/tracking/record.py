"""One run in MLflow: parameters, tags, metrics, figures, model. Runs in the recording process."""

import gc
import getpass
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from omegaconf import OmegaConf

from experiments import __version__
from experiments.config import Config
from experiments.config.schema import Tracking
from experiments.tracking.store import allow_many_writers, alone, redact, sqlite_file

if TYPE_CHECKING:
    from experiments.evaluation import Report

VERSIONED = ("tensorflow", "keras", "mlflow", "numpy", "hydra-core")
MODEL_REQUIREMENTS = ("keras", "tensorflow", "numpy")
USED_LATE = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.pyfunc",
    "sklearn.metrics",
    "matplotlib.backends.backend_agg",
    "experiments.figures",
)


def quiet_mlflow() -> Any:
    """Import MLflow without its telemetry and its chatter."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # errors reach us as exceptions
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow
    from mlflow.utils import environment as requirements

    # Compares a model's requirements with what is installed: reads the files of all packages, to log a warning.
    requirements.warn_dependency_requirement_mismatches = lambda _: None
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


def open_store(uri: str) -> Any:
    """Open a store, or create it; return MLflow's client."""
    mlflow = quiet_mlflow()
    mlflow.set_tracking_uri(uri)
    with alone(uri):
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
        allow_many_writers(uri)
    return client


class Finished(NamedTuple):
    """A run that has finished, and what it reached."""

    run_id: str
    objective: float


class Record:
    """An MLflow run. Its methods are called in the order in which they stand here.

    Attributes:
        run_id: Empty until `start` has created the run.
    """

    def __init__(self, uri: str, own_process: bool) -> None:
        self.run_id = ""
        self._uri = uri
        self._monitor: Any = None
        self._entered = int(time.time() * 1000)
        self._client = open_store(uri)
        if own_process:
            # All imports at once, while the other process imports TensorFlow, and not while it waits for the end.
            _import_keras_flavour()
            import_what_is_used_late()
            gc.freeze()  # all that was imported stays: spares the collector a look through it, which takes 0.1 s

    def find_finished(self, config: Config, wanted: str) -> Finished | Literal[False]:
        """Find the latest finished run with a fingerprint, beneath the same parent if there is one."""
        condition = f"tags.fingerprint = '{wanted}' and attributes.status = 'FINISHED'"
        if config.tracking.parent:
            condition += f" and tags.`mlflow.parentRunId` = '{config.tracking.parent}'"
        ids = [experiment(self._client, config.tracking.experiment, self._uri)]
        found = self._client.search_runs(ids, condition, max_results=1)
        return bool(found) and Finished(found[0].info.run_id, found[0].data.metrics["objective"])

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

        experiment_id = experiment(self._client, config.tracking.experiment, self._uri)
        mlflow.set_experiment(experiment_id=experiment_id)  # where `log_model` puts the model
        run = self._client.create_run(
            experiment_id,
            start_time=self._entered,
            run_name=config.tracking.run_name or run_name(overrides),
            tags={**_tags(config, dataset, overrides), **identity},
        )
        self.run_id = run.info.run_id
        recorded = config.model_dump(exclude={"tracking": {"uri", "parent"}, "resume": True}, exclude_unset=True)
        parameters = flatten({**recorded, "runtime": dict(chosen)})
        self._client.log_batch(self.run_id, params=[Param(key, _as_text(value)) for key, value in parameters.items()])
        self._client.log_inputs(self.run_id, [_dataset_input(dataset)])
        self._client.log_text(self.run_id, redact(OmegaConf.to_yaml(recorded)), "config/config.yaml")
        self._client.log_text(self.run_id, "".join(f"{line}\n" for line in overrides), "config/overrides.txt")
        self._client.log_text(self.run_id, environment(), "environment.txt")
        if config.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, sampling_interval=1)
            self._monitor.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step, in one batch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, [Metric(key, float(value), now, step) for key, value in metrics.items()])

    def log_report(self, history: Mapping[str, Sequence[float]], report: "Report") -> None:
        """Write ``report.json`` and draw ``figures/``."""
        from experiments import figures

        self._client.log_text(self.run_id, json.dumps(report.as_json(), indent=2), "report.json")
        for name, figure in figures.draw(history, report).items():
            self._client.log_figure(self.run_id, figure, f"figures/{name}.png", save_kwargs=figures.SAVED)

    def log_model(self, file: str, example: Any, classes: int, step: int) -> None:
        """Log a saved Keras model as ``model``, with signature and input example."""
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
        """Set the run's final status; a traceback becomes ``traceback.txt``. Return the run's id."""
        if self._monitor:
            self._monitor.finish()
        if self.run_id:
            end_run(self._client, self.run_id, status, trace)
        return self.run_id

    def abandon(self) -> None:
        """End the run of a training process that is gone."""
        self.end("FAILED", "The training process died without a word: killed, or out of memory.\n")


def import_what_is_used_late() -> None:
    """Import what MLflow and the figures import when they first need it, while somebody waits."""
    for name in USED_LATE:
        importlib.import_module(name)
    from mlflow.utils.git_utils import get_git_commit

    get_git_commit(".")  # imports GitPython where git is installed


def _import_keras_flavour() -> None:
    """Import MLflow's Keras flavour without Keras: to write its files it needs two of its names, not TensorFlow."""
    stand_in = ModuleType("keras")
    vars(stand_in).update(
        __version__=importlib.metadata.version("keras"),
        backend=SimpleNamespace(backend=lambda: "tensorflow"),
        callbacks=SimpleNamespace(Callback=object),
    )
    sys.modules["keras"] = stand_in
    import mlflow.keras  # noqa: F401


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


def environment() -> str:
    """Installed packages as ``name==version`` lines; no addresses, which may hold credentials."""
    found = {}
    for item in importlib.metadata.distributions():
        # Not its `name` and `version`: each parses the whole file, description and all.
        text = item.read_text("METADATA") or item.read_text("PKG-INFO") or ""
        fields = dict(re.findall(r"^(Name|Version): (.+)$", text.partition("\n\n")[0], re.MULTILINE))
        if "Name" in fields:
            found[fields["Name"]] = fields["Version"]
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"# Python {platform.python_version()} on {platform.platform()}", *lines]) + "\n"


def _as_text(value: Any) -> str:
    return redact(value) if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def end_run(client: Any, run_id: str, status: str, trace: str = "") -> None:
    """Set a run's final status; the last line of a traceback becomes the tag `failure`."""
    if trace:
        client.set_tag(run_id, "failure", trace.strip().splitlines()[-1][:500])
        client.log_text(run_id, trace, "traceback.txt")
    client.set_terminated(run_id, status)


def experiment(client: Any, name: str, uri: str) -> str:
    """Find or create an MLflow experiment; return its id."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    # Explicit, or artifacts land relative to wherever the process stands.
    file = sqlite_file(uri)
    location = file and (file.parent / "artifacts").as_uri()
    try:
        return str(client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)


def _tags(config: Config, dataset: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    return {
        **origin(config.tracking, overrides, "python -m experiments.run"),
        "objective": config.objective_metric,
        "dataset": dataset["name"],
        "dataset.digest": dataset["digest"],
        **({"mlflow.parentRunId": config.tracking.parent} if config.tracking.parent else {}),
    }


def origin(tracking: Tracking, overrides: Sequence[str], command: str) -> dict[str, str]:
    """Tags that say where a run comes from: command, code, versions, machine, user."""
    line = " ".join([command, *(f"'{item}'" for item in overrides)])
    return {
        **{key: str(value) for key, value in tracking.tags.items()},
        **{f"version.{name}": importlib.metadata.version(name) for name in VERSIONED},
        **_git_tags(),
        "version.python": platform.python_version(),
        "version.experiments": __version__,
        "overrides": " ".join(overrides),
        "host": socket.gethostname(),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "experiments.run",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": f"`{line}`",
    }


def _git_tags() -> dict[str, str]:
    """Commit of the current folder, and whether files differ from it; nothing outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": commit, "git.dirty": str(bool(changed)).lower(), "mlflow.source.git.commit": commit}


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
