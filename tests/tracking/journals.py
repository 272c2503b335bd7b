"""Journals for tests, as runs of ours write them, and what of them is in a store."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import Split
from experiments.task import classification, of
from experiments.task.measuring import keep
from experiments.tracking import index, journal, record
from experiments.tracking.journal import Journal

REPORT = classification.report(
    {"test_loss": 0.5, "test_accuracy": 0.75},
    keep(
        of("classification"),
        Split(np.zeros((4, 8, 8, 1), np.float32), np.array([0, 1, 1, 0])),
        np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.8, 0.2]], np.float32),
        "softmax",
    ),
)


def opened(**changed: Any) -> dict[str, Any]:
    """What the first event of a run says."""
    return {
        "uuid": journal.new_uuid(),
        "started": 1_000,
        "store": "mlruns/mlflow.db",
        "experiment": "digits",
        "name": "a run",
        "parent": None,
        "tags": {"fingerprint": "f", "objective": "val_accuracy", "measured_as": "val_accuracy", "mlflow.user": "me"},
        "parameters": {"seed": "0", "runtime.threads": "2", "long": "x" * 6000},
        "dataset": {"name": "digits", "digest": "d" * 64, "source": "here", "profile": {"train": 4}},
        **changed,
    }


def write(output: Path, *, epochs: int = 3, close: bool = True, **changed: Any) -> Path:
    """Write the journal of a whole run; return its folder."""
    with Journal.create(output) as own:
        said = opened(**changed)
        index.add_waiting(said["uuid"], own.folder)
        index.Claim(said["tags"].get("fingerprint", "none")).add(own.folder)
        own.append("opened", **said)
        own.add_file("config/config.yaml", "seed: 0\n")
        for epoch in range(epochs):
            values = {"loss": 1 / (epoch + 1), "nan": float("nan"), "inf": float("inf"), "val_accuracy": epoch / 10}
            own.append("metrics", sync=False, step=epoch, values=values)
        own.append("metrics", step=epochs - 1, values={"objective": 0.5})
        own.append("tags", tags={"weights.digest": "w"})
        own.write("report.npz", record.packed_report("classification", {"loss": [1.0] * epochs}, REPORT))
        own.append("report", file="report.npz")
        own.write("model.keras", b"not a model, but that is not looked at")
        own.write("example.npy", record.packed(np.zeros((1, 2, 2))))
        own.append("model", uuid=journal.new_uuid(), step=epochs - 1, classes=2, example="example.npy")
        if close:
            own.append("closed", status="FINISHED", failure="", trace="")
    return own.folder


def stored(store: Path) -> dict[str, Any]:
    """All that a SQLite store has of runs, without what differs from one creation to the next."""
    with closing(sqlite3.connect(store, timeout=60)) as connection:
        return dict(_stored(connection, store.parent / "artifacts"))


def _stored(connection: sqlite3.Connection, artifacts: Path) -> Iterator[tuple[str, Any]]:
    queries = {
        "runs": "SELECT name, status, start_time, lifecycle_stage FROM runs ORDER BY name",
        "metrics": "SELECT r.name, m.key, m.step, m.value, m.is_nan FROM metrics m JOIN runs r USING (run_uuid) "
        "ORDER BY 1, 2, 3",
        "latest": "SELECT r.name, m.key, m.step, m.value FROM latest_metrics m JOIN runs r USING (run_uuid) "
        "ORDER BY 1, 2",
        "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid) ORDER BY 1, 2",
        "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid) "
        "WHERE t.key NOT IN ('mlflow.parentRunId', 'best_run', 'mlflow.runName', 'experiments.uuid') ORDER BY 1, 2",
        "inputs": "SELECT r.name, i.source_type, i.destination_type, i.step FROM inputs i "
        "JOIN runs r ON r.run_uuid IN (i.source_id, i.destination_id) ORDER BY 1, 2",
        "datasets": "SELECT name, digest FROM datasets",
        "models": "SELECT r.name, m.name, m.status FROM logged_models m JOIN runs r ON r.run_uuid = m.source_run_id "
        "ORDER BY 1",
        "of models": "SELECT metric_name, metric_step, metric_value FROM logged_model_metrics ORDER BY 1, 2, 3",
    }
    for name, statement in queries.items():
        yield name, connection.execute(statement).fetchall()
    yield "files", sorted(file.name for file in artifacts.rglob("*") if file.is_file())
