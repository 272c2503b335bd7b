"""The only place that knows MLflow. It is imported in a thread of its own, while the first epoch trains."""

import importlib.metadata
import json
import os
import platform
import re
import socket
import sqlite3
import subprocess
import time
import traceback
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments import __version__
from experiments.config import Config, Problem, RunFailed
from experiments.config.schema import Tracking
from experiments.data import Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path("mlruns")
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "uc")
VERSIONED = ("tensorflow", "keras", "mlflow", "numpy", "hydra-core")


def store_uri(config: Tracking) -> str:
    """``tracking.uri``, else ``$MLFLOW_TRACKING_URI``, else SQLite in ``mlruns/`` of the current folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{FOLDER.absolute() / 'mlflow.db'}"


def problems(config: Tracking) -> list[Problem]:
    """Say why nothing could be recorded, if so. Quick: MLflow is not imported."""
    found = []
    if not _writable(FOLDER.absolute()):
        found.append(Problem(str(FOLDER.absolute()), "cannot be written, and all output goes there; start in another folder"))
    if config.enabled and (reason := _unreachable(store_uri(config))):
        where = "tracking.uri" if config.uri else "$MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "tracking"
        found.append(Problem(where, f"{redact(store_uri(config))}: {redact(reason)}; or train without a record", "tracking=off"))
    return found


def redact(text: str) -> str:
    """Take user names and passwords out of addresses."""
    return re.sub(r"(\w://)[^/@\s'\"]+@", r"\1***@", text)


def _writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _unreachable(uri: str) -> str | None:
    """Try the store, at most a few seconds; None if it answers."""
    scheme = uri.partition(":")[0].partition("+")[0]
    try:
        if scheme == "sqlite":
            return _sqlite_trouble(Path(uri.partition(":///")[2].partition("?")[0]))
        if scheme in ("http", "https"):
            urllib.request.urlopen(f"{re.sub(r'//[^/@]+@', '//', uri).rstrip('/')}/health", timeout=3).close()
        elif scheme in ("postgresql", "mysql", "mssql"):
            import sqlalchemy

            sqlalchemy.create_engine(uri).connect().close()
        elif scheme not in SCHEMES:
            return "is no tracking store; expected sqlite:///FILE, http://HOST:PORT or a database (files are no longer a store)"
    except Exception as error:  # whatever the driver raises: the store cannot be used
        return f"cannot be reached ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


def _sqlite_trouble(file: Path) -> str | None:
    if not file.exists():
        return None if _writable(file.absolute().parent) else "its folder cannot be written"
    if not os.access(file, os.W_OK):
        return "cannot be written"
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=3) as connection:
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
        connection.close()
    except sqlite3.DatabaseError as error:
        return f"is not a usable SQLite file ({error}); move it away to start a new one"
    return None


class Recorder:
    """Records one run in MLflow, in order, in a thread of its own: training never waits for the store.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.
    With ``tracking=off`` it does nothing.
    """

    def __init__(self, config: Config, dataset: Dataset, chosen: Mapping[str, Any], overrides: Sequence[str]) -> None:
        self.run_id = ""
        self._config, self._dataset, self._chosen = config, dataset, chosen
        self._overrides = [redact(override) for override in overrides]
        self._started = time.time()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._work: list[Future[None]] = []

    def __enter__(self) -> "Recorder":
        self._submit(self._start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._submit(self._end, "FINISHED")
        elif isinstance(error, Exception):
            text = redact("".join(traceback.format_exception(kind, error, trace)))
            self._submit(lambda: self._client.log_text(self.run_id, text, "traceback.txt"))
            self._submit(self._end, "FAILED")
        else:
            self._submit(self._end, "KILLED")
        self._thread.shutdown(wait=True)
        if error is None:
            self.raise_failure()

    def raise_failure(self) -> None:
        """Raise RunFailed if something could not be recorded."""
        for done in self._work:
            if done.done() and (error := done.exception()):
                raise RunFailed(f"the run could not be recorded: {redact(str(error) or type(error).__name__)}") from error

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a finished epoch (counted from 0) at that step."""
        self.raise_failure()
        self._submit(self._log_metrics, dict(metrics), epoch)

    def log_results(self, metrics: Mapping[str, float], report: Mapping[str, Any], step: int) -> None:
        """Record the measures of the finished model, and the report as ``report.json``."""
        self._submit(self._log_metrics, dict(metrics), step)
        self._submit(lambda: self._client.log_text(self.run_id, json.dumps(report, indent=2), "report.json"))

    def log_figures(self, figures: Mapping[str, "Figure"]) -> None:
        """Record pictures as ``figures/NAME.png``."""
        for name, figure in figures.items():
            file = f"figures/{name}.png"
            self._submit(self._log_figure, figure, file)

    def log_model(self, model: Any, step: int) -> None:
        """Record the Keras model after epoch `step` (counted from 0), with signature and input example, as ``model``."""
        self._submit(self._log_model, model, step)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        if self._config.tracking.enabled:
            self._work.append(self._thread.submit(work, *arguments))

    def _start(self) -> None:
        config = self._config
        mlflow = quiet_mlflow()
        uri = store_uri(config.tracking)
        mlflow.set_tracking_uri(uri)
        self._client = mlflow.MlflowClient()
        experiment_id = _experiment_id(self._client, config.tracking.experiment, uri)
        mlflow.set_experiment(experiment_id=experiment_id)  # where the model goes
        run = self._client.create_run(
            experiment_id,
            start_time=int(self._started * 1000),
            run_name=config.tracking.run_name or run_name(self._overrides),
            tags=self._tags(),
        )
        self.run_id = run.info.run_id
        recorded = config.model_dump(exclude={"tracking": {"uri"}})
        parameters = flatten({**recorded, "runtime": dict(self._chosen)})
        entities = mlflow.entities
        self._client.log_batch(
            self.run_id, params=[entities.Param(key, _as_text(value)) for key, value in parameters.items()]
        )
        self._client.log_inputs(self.run_id, [self._dataset_input(entities)])
        self._client.log_text(self.run_id, OmegaConf.to_yaml(recorded), "config/config.yaml")
        self._client.log_text(self.run_id, "".join(f"{line}\n" for line in self._overrides), "config/overrides.txt")
        self._client.log_text(self.run_id, environment(), "environment.txt")
        self._monitor = None
        if config.tracking.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, sampling_interval=1)
            self._monitor.start()
        # Imported here, while the main thread trains: evaluation and figures need them at once afterwards.
        import matplotlib.figure
        import sklearn.metrics  # noqa: F401

    def _tags(self) -> dict[str, str]:
        config, dataset = self._config, self._dataset
        versions = {f"version.{name}": importlib.metadata.version(name) for name in VERSIONED}
        command = " ".join(["python -m experiments.run", *(f"'{item}'" for item in self._overrides)])
        return {
            **{key: str(value) for key, value in config.tracking.tags.items()},
            **versions,
            **_git_tags(),
            "version.python": platform.python_version(),
            "version.experiments": __version__,
            "overrides": " ".join(self._overrides),
            "objective": config.objective_metric,
            "dataset": dataset.name,
            "dataset.digest": dataset.digest,
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "mlflow.source.name": "experiments.run",
            "mlflow.source.type": "LOCAL",
            "mlflow.note.content": f"`{command}`",
        }

    def _dataset_input(self, entities: Any) -> Any:
        dataset = self._dataset
        validation = len(dataset.validation) if dataset.validation else 0
        profile = {"train": len(dataset.train), "validation": validation, "test": len(dataset.test)}
        described = entities.Dataset(
            name=dataset.name,
            digest=dataset.digest[:32],
            source_type="local",
            source=json.dumps({"uri": dataset.source}),
            profile=json.dumps(profile | {"classes": dataset.classes, "input_shape": dataset.input_shape}),
        )
        return entities.DatasetInput(described, [entities.InputTag("mlflow.data.context", "training")])

    def _log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, [Metric(key, float(value), now, step) for key, value in metrics.items()])

    def _log_figure(self, figure: "Figure", file: str) -> None:
        self._client.log_figure(self.run_id, figure, file, save_kwargs={"dpi": 110})

    def _log_model(self, model: Any, step: int) -> None:
        import mlflow.keras
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        def save_model(path: str, validate_serving_input: bool, **arguments: Any) -> None:
            os.makedirs(path)  # MLflow forgets to, where there is an input example (mlflow/mlflow#16183)
            mlflow.keras.save_model(path=path, **arguments)

        shape = (-1, *self._dataset.input_shape)
        output = (-1, self._dataset.classes)
        Model.log(
            artifact_path=None,
            name="model",
            flavor=SimpleNamespace(save_model=save_model, __name__=mlflow.keras.__name__),
            run_id=self.run_id,
            step=step,  # its page shows the run's metrics of this step
            model=model,
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype(np.float32), shape)]), Schema([TensorSpec(np.dtype(np.float32), output)])
            ),
            input_example=self._dataset.test.x[:1],
            validate_serving_input=False,  # would load the model again; a test serves one instead
            # Explicit: to find them out, MLflow would start a process that imports TensorFlow once more.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("keras", "tensorflow", "numpy")],
        )

    def _end(self, status: str) -> None:
        if not self.run_id:
            return
        if self._monitor:
            self._monitor.finish()
        self._client.set_terminated(self.run_id, status)


def quiet_mlflow() -> Any:
    """Import MLflow without its telemetry and its chatter."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import logging

    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


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
    found = {(item.metadata["Name"], item.version) for item in importlib.metadata.distributions() if item.metadata["Name"]}
    lines = [f"# Python {platform.python_version()} on {platform.platform()}"]
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(found, key=lambda p: p[0].lower()))]) + "\n"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _experiment_id(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    # Explicit, or artifacts land relative to wherever the process stands.
    location = Path(uri.partition(":///")[2]).parent.absolute() / "artifacts" if uri.startswith("sqlite") else None
    try:
        return str(client.create_experiment(name, artifact_location=location and location.as_uri()))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)


def _git_tags() -> dict[str, str]:
    """Commit of the current folder, and whether files differ from it; nothing outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": commit, "git.dirty": str(bool(changed)).lower(), "mlflow.source.git.commit": commit}
