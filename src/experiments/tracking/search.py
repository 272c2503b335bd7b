"""Looking for recorded runs: few queries, as a store may hold many thousands."""

import functools
import math
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from experiments.config import Problem, Refused, RunFailed, suggest
from experiments.config.problems import assign, closest
from experiments.tracking import sqlite
from experiments.tracking.client import import_mlflow
from experiments.tracking.sqlite import sqlite_file
from experiments.tracking.store import damage, damaged
from experiments.tracking.summary import status_of

P = ParamSpec("P")
T = TypeVar("T")
PAGE = 1000  # runs per query
SHORTEST_ID = 4  # characters of the beginning of an id
BEGINNING = re.compile(rf"[0-9A-Za-z-]{{{SHORTEST_ID},64}}")
FLOAT32_MAX = (2 - 2**-23) * 2.0**127
COPIES: list[sqlite3.Connection] = []  # of read-only stores; each is there as long as its connection

UUID = "experiments.uuid"  # the tag by which a run, or a model, of ours is found again
# Tags of a resumed run: when its latest attempt began, in milliseconds since 1970, and how long those before it took.
WENT_ON_AT, EARLIER_SECONDS = "resumed.at", "resumed.earlier_seconds"


def status(run: Any) -> str:
    """A run's status, see `status_of`."""
    return status_of(str(run.info.status), run.data.tags, run.data.metrics)


def seconds(run: Any) -> float | None:
    """How long a run took, without the pause before it was resumed; None while it is under way."""
    tags, began, ended = run.data.tags, run.info.start_time, run.info.end_time
    try:
        began, earlier = int(tags.get(WENT_ON_AT, began)), float(tags.get(EARLIER_SECONDS, 0))
    except ValueError:  # written by other means
        earlier = 0.0
    return None if ended is None or ended < began else earlier + (ended - began) / 1000


def reads_store(function: Callable[P, T]) -> Callable[P, T]:
    """Refuse a store that MLflow fails to read.

    Raises:
        Refused: With what MLflow said.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (Refused, RunFailed):
            raise
        except Exception as error:
            if not (problem := damage(error)):
                raise
            raise Refused(problem) from error

    return guarded


def connect(uri: str) -> Any:
    """MLflow's client of a store that exists, and of the registry in it."""
    mlflow = import_mlflow()
    if (file := sqlite_file(uri)) and sqlite.is_read_only(file):
        uri = _copy_in_memory(file)
    return mlflow.MlflowClient(uri, registry_uri=uri)


def _copy_in_memory(file: Path) -> str:
    """Copy a store that cannot be written, and so not be opened by MLflow; return the address of the copy."""
    name = f"file:store{len(COPIES)}?mode=memory&cache=shared"
    COPIES.append(sqlite3.connect(name, uri=True, check_same_thread=False))
    sqlite.copy_to(file, COPIES[-1])
    return f"sqlite:///{name}&uri=true"


def measures(run: Any) -> dict[str, float]:
    """The last values of a run's metrics, as they were measured."""
    return {key: measured(value) for key, value in run.data.metrics.items()}


def measured(stored: float) -> float:
    """A value as it was measured: in float32, so that a larger one is MLflow's for infinity, or foreign.

    Raises:
        Refused: It is no number, which SQLite does not prevent.
    """
    if not isinstance(stored, int | float):
        raise Refused(damaged(f"the value of a metric is {stored!r:.50}"))
    return math.copysign(math.inf, stored) if abs(stored) > FLOAT32_MAX else stored


def experiment_ids(client: Any, name: str) -> list[str]:
    """The id of an MLflow experiment; without a name, of all.

    Raises:
        Refused: There is none of that name.
    """
    if not name:
        return [item.experiment_id for item in client.search_experiments()]
    found = client.get_experiment_by_name(name)  # not by a query, which some names cannot be quoted in
    if found is None or found.lifecycle_stage != "active":
        known = [item.name for item in client.search_experiments()]
        meant = closest(name, known) or newest_experiment(client)
        remedy = assign("tracking.experiment", meant) if meant else ""
        raise Refused(Problem("tracking.experiment", f"there is no experiment {name}; {suggest(name, known)}", remedy))
    return [found.experiment_id]


def newest_experiment(client: Any) -> str | None:
    """The experiment of the latest run of ours; None if there is no run."""
    ids = [item.experiment_id for item in client.search_experiments()]
    found = search(client, ids, "tags.objective LIKE '%'", "start_time DESC", limit=1)
    return str(client.get_experiment(found[0].info.experiment_id).name) if found else None


def search(
    client: Any, experiments: Sequence[str], condition: str = "", order: str = "start_time ASC", limit: int = 0
) -> list[Any]:
    """All runs that fit, or the first few.

    Raises:
        Refused: The time of one is no number, or a tag or parameter no text, which SQLite does not prevent.
    """
    runs, token = list[Any](), None
    while True:
        size = limit or PAGE
        page = client.search_runs(experiments, condition, max_results=size, order_by=[order], page_token=token)
        runs += page
        for run in page:
            refuse_damaged(run)
        token = page.token
        if limit or not token:
            return runs


def refuse_damaged(run: Any) -> None:
    """Refuse a run whose times are no numbers, or whose tags or parameters are no texts."""
    for time in (run.info.start_time, run.info.end_time or 0):
        if not isinstance(time, int):
            raise Refused(damaged(f"run {run.info.run_id} has the time {time!r:.50}"))
    for key, text in {**run.data.params, **run.data.tags}.items():
        if not isinstance(text, str):
            raise Refused(damaged(f"{key} of run {run.info.run_id} is {text!r:.50}"))


def by_beginning(client: Any, experiments: Sequence[str], run_id: str, key: str) -> Any:
    """The run whose id begins with `run_id`, the short form that tables show.

    Raises:
        Refused: There is none, or there are several; `key` named it.
    """
    if not BEGINNING.fullmatch(run_id):  # it could be more than an id within a query
        raise Refused(unknown(key, run_id))
    found = search(client, experiments, f"attributes.run_id LIKE '{run_id}%'", limit=2)
    if len(found) > 1:
        raise Refused(Problem(key, f"{run_id} is the beginning of several ids; write more of it"))
    if not found:
        raise Refused(unknown(key, run_id))
    return found[0]


def unknown(key: str, run_id: str) -> Problem:
    """A run that is not in the store."""
    hint = f"; give at least {SHORTEST_ID} characters of its id" if len(run_id) < SHORTEST_ID else ""
    return Problem(
        key,
        f"there is no run {run_id!r} in this store{hint}",
        {"run": "run=latest", "sweep": "sweep=latest"}.get(key, "runs=[] sweep=latest"),
    )
