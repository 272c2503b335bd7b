"""MLflow's client: imported quietly, on a store that several processes may open and write at once."""

import importlib
import logging
import os
import sqlite3
import sys
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from experiments.system.imports import imports
from experiments.tracking.sqlite import allow_many_writers, alone, sqlite_file

USED_LATE = (
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.metrics",
    "matplotlib.backends.backend_agg",
    "experiments.task.pictures",
)


def import_mlflow() -> Any:
    """Import MLflow without its telemetry and its chatter."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if os.environ.get("MLFLOW_LOGGING_LEVEL", "").upper() not in logging.getLevelNamesMapping():
        os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"  # errors reach us as exceptions
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # we try again ourselves, and say so meanwhile
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # what was logged must not be lost with the process
    with imports():
        import mlflow
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


def open_store(uri: str) -> Any:
    """Open a store, or create it; return MLflow's client."""
    mlflow = import_mlflow()
    if sqlite_file(uri):  # a file that was replaced must not be written on in its old place
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    with alone(uri):
        if file := missing_file(uri):
            new = file.with_name(f"{file.name}.{uuid4().hex}")  # and put in its place when it is whole
            new.write_bytes(new_store(file.parent))
            new.replace(file)
        client = mlflow.MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        allow_many_writers(uri)
    return client


def open_existing_store(uri: str) -> Any:
    """Open a store; where it has yet to be created, get ready for that, as what it is for may yet be refused: None."""
    if file := missing_file(uri):
        new_store(file.parent)
        return None
    return open_store(uri)


def missing_file(uri: str) -> Path | None:
    """The file of a SQLite store, if it has yet to be created."""
    file = sqlite_file(uri)
    return None if file is None or (file.exists() and file.stat().st_size) else file


@cache
def new_store(folder: Path) -> bytes:
    """Make the content of a new SQLite store, which takes a second, in memory: nothing is on disk before it is needed.

    Args:
        folder: Of the file that it is for; artifacts go beside it.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    address = f"file:{uuid4().hex}?mode=memory&cache=shared"
    with closing(sqlite3.connect(address, uri=True)) as connection:  # it is there as long as a connection is open
        SqlAlchemyStore(f"sqlite:///{address}&uri=true", (folder / "artifacts").as_uri()).engine.dispose()
        return connection.serialize()


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


def import_what_is_used_late() -> None:
    """Import now what MLflow and the figures would import at first use, when a run waits for them.

    GitPython is left out: its import runs git without a time limit, and `provenance` records the commit.
    """
    os.environ["MPLBACKEND"] = "agg"
    sys.modules.setdefault("git", None)  # type: ignore[arg-type]
    for name in USED_LATE:
        importlib.import_module(name)
