"""What is compared of runs beside their parameters and metrics: curves and confusion matrices."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from experiments.config.objective import COSTS
from experiments.ranking.frame import METRICS, section
from experiments.tracking.artifacts import stored_text
from experiments.tracking.search import measured, reads_store

if TYPE_CHECKING:
    import pandas as pd

BULK = 100  # runs whose curves are read by one query
POINTS = 1_000_000  # points of a curve, times BULK: an upper bound for one query
SIDE_BY_SIDE = 8  # requests to a server
SERVERS = ("http:", "https:", "databricks", "uc")
# A confusion matrix, with as many images of a class as can be true.
COUNTS = TypeAdapter(Annotated[list[list[Annotated[int, Field(ge=0, lt=10**12)]]], Field(min_length=2)])
# What a run measures of the machine, and what its model costs; all that is measured once, at the end.
NOT_LEARNED = re.compile("|".join(["fit_seconds", "samples_per_second", *COSTS, "system/.*"]))
ONCE = re.compile(f"test_.*|final_.*|objective|{NOT_LEARNED.pattern}")


@reads_store
def with_curves(client: Any, runs: "pd.DataFrame", metrics: Sequence[str] | None = None) -> "pd.DataFrame":
    """The runs with what they recorded after each epoch of these metrics, or of all."""
    last = section(runs, METRICS)
    read: dict[str, dict[str, dict[int, float]]] = {run_id: {} for run_id in runs["run_id"]}
    for key in [key for key in last if not ONCE.fullmatch(key)] if metrics is None else metrics:
        recorded = runs["run_id"][last[key].notna()] if key in last else []
        for run_id, point in _points(client, list(recorded), key):
            read[run_id].setdefault(key, {})[point.step] = measured(point.value)
    return runs.assign(
        curves=[
            {key: [by_step[step] for step in sorted(by_step)] for key, by_step in read[run_id].items()}
            for run_id in runs["run_id"]
        ]
    )


def confusion_matrices(client: Any, run_ids: Sequence[str]) -> dict[str, list[list[int]]]:
    """The confusion matrices of those runs that left one, by their ids; rows are the truth.

    A run that was never measured, or whose report is lost or damaged, has none: the rest can be compared all the same.
    """
    found = {}
    for run_id in run_ids:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            report = json.loads(stored_text(client, client.get_run(run_id), "report.json") or "")
            matrix = COUNTS.validate_python(report["confusion_matrix"], strict=True)
            if {len(row) for row in matrix} == {len(matrix)}:
                found[run_id] = matrix
    return found


def _points(client: Any, run_ids: Sequence[str], key: str) -> list[tuple[str, Any]]:
    """All points of a metric's curves, each with its run, in the order in which they were recorded."""
    if not client.tracking_uri.startswith(SERVERS):  # a database, for which one query does
        store = _database(client.tracking_uri)
        parts = [run_ids[start : start + BULK] for start in range(0, len(run_ids), BULK)]
        found = [point for part in parts for point in store.get_metric_history_bulk(part, key, POINTS)]
        return [(point.run_id, point) for point in found]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        curves = pool.map(lambda run_id: client.get_metric_history(run_id, key), run_ids)
        return [(run_id, point) for run_id, curve in zip(run_ids, curves, strict=True) for point in curve]


@cache
def _database(uri: str) -> Any:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(uri, "")
