"""The recorded runs that are to be compared."""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from experiments.config import CompareConfig, Config, Problem, Refused
from experiments.config.objective import recorded_objective
from experiments.config.problems import assign
from experiments.config.schema import Tracking
from experiments.ranking.comparison import CIRCUMSTANCES, Comparison, Run, comparable, compare
from experiments.tracking.artifacts import stored_text
from experiments.tracking.search import (
    UUID,
    by_beginning,
    experiment_ids,
    measured,
    measures,
    newest_experiment,
    reads_store,
    search,
    seconds,
    unknown,
)
from experiments.tracking.store import existing

KEPT = "kept_runs."  # tags of a sweep that list runs of others, which had finished before
BULK = 100  # runs whose curves are read by one query
POINTS = 1_000_000  # of a curve, times BULK: more than there are
SIDE_BY_SIDE = 8  # requests to a server
SERVERS = ("http:", "https:", "databricks", "uc")
WHOLE_ID = 32  # characters
MOST_IMAGES = 10**12  # of a class in a confusion matrix that can be true
# Metrics that are measured once, at the end.
ONCE = re.compile(r"test_.*|final_.*|objective|fit_seconds|samples_per_second|system/.*")


@dataclass(frozen=True)
class Selection:
    """Runs to compare.

    Attributes:
        title: What they are.
        runs: In the order in which they started.
        circumstances: Parameters that nobody asked for, and that change no result.
    """

    title: str
    runs: Sequence[Run]
    circumstances: frozenset[str]


@reads_store
def holding(tracking: Tracking, wanted: Mapping[str, str]) -> str:
    """Return the address of a store that answers and holds the runs, as far as can be seen at once.

    Args:
        tracking: The store.
        wanted: Ids of runs, to the config key that named them.

    Raises:
        Refused: There is no such store or run.
    """
    uri = existing(tracking, "sweep")
    strange = {run_id for run_id in wanted if not re.fullmatch(r"[\w-]{4,64}", run_id)}
    if strange:
        problems = [unknown(key, run_id) for run_id, key in wanted.items() if run_id in strange]
        raise _without_them(problems, [run_id for run_id in wanted if run_id not in strange])
    return uri


@reads_store
def select(client: Any, config: CompareConfig) -> Selection:
    """Find the runs.

    Raises:
        Refused: There are none.
    """
    name = config.tracking.experiment
    ids = experiment_ids(client, name)
    if config.runs:
        return _selection("chosen runs", _by_ids(client, ids, config.runs))
    if name and config.sweep is None:
        found = [run for run in search(client, ids) if "sweep" not in run.data.tags]
        selection = _selection(f"experiment {name}", found)
    else:
        selection = of_sweep(client, ids, _sweep(client, ids, config))
    if not selection.runs:
        where = "tracking.experiment" if name else "sweep"
        raise Refused(Problem(where, f"{selection.title} has no runs", another_experiment(client, config)))
    return selection


def another_experiment(client: Any, config: CompareConfig) -> str:
    """The overrides that choose the experiment of the latest run, not what was chosen; empty if there is none."""
    name = newest_experiment(client)
    if name is None:
        return ""
    reset = [assign("runs", [])] * bool(config.runs) + [assign("sweep", None)] * (config.sweep is not None)
    return " ".join([*reset, assign("tracking.experiment", name)])


def of_sweep(client: Any, experiments: Sequence[str], parent: Any) -> Selection:
    """The runs beneath a parent run, and those of others that it has kept."""
    found = search(client, experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    for key, listed in parent.data.tags.items():
        if key.startswith(KEPT) and re.fullmatch(r"\w+(,\w+)*", listed):
            ids = ",".join(f"'{run_id}'" for run_id in listed.split(","))
            found += search(client, experiments, f"attributes.run_id IN ({ids})")
    return _selection(f"{parent.info.run_name or 'sweep'}, run {parent.info.run_id}", found)


def comparable_with_newest(client: Any, experiments: Sequence[str]) -> Comparison | None:
    """The finished runs that can be compared with the newest one that held out a validation set, ranked.

    None if none did.
    """
    finished = "attributes.status = 'FINISHED' and tags.objective LIKE 'val_%'"
    newest = search(client, experiments, finished, "start_time DESC", limit=1)
    if not newest or (measured := recorded_objective(newest[0].data.tags, newest[0].data.params)) is None:
        return None
    tags = newest[0].data.tags
    same = "".join(f" and tags.`{key}` = '{tags[key]}'" for key in ("objective", "dataset.digest") if key in tags)
    selection = _selection("", search(client, experiments, f"{finished}{same}"))
    runs = comparable(selection.runs)[measured]
    return compare(runs, "", measured, selection.circumstances)


@reads_store
def with_curves(client: Any, runs: Sequence[Run], metrics: Sequence[str] | None = None) -> list[Run]:
    """The runs with what they recorded after each epoch of these metrics, or of all."""
    every = dict.fromkeys(key for run in runs for key in run.metrics if not ONCE.fullmatch(key))
    read: dict[str, dict[str, dict[int, float]]] = {run.run_id: {} for run in runs}
    for key in every if metrics is None else metrics:
        for run_id, point in _points(client, [run.run_id for run in runs if key in run.metrics], key):
            read[run_id].setdefault(key, {})[point.step] = measured(point.value)
    return [
        replace(run, curves={key: [by_step[step] for step in sorted(by_step)] for key, by_step in curves.items()})
        for run, curves in ((run, read[run.run_id]) for run in runs)
    ]


def confusion_matrices(client: Any, run_ids: Sequence[str]) -> dict[str, list[list[int]]]:
    """The confusion matrices of those runs that left one, by their ids; rows are the truth.

    A run that was never measured, or whose report is lost or damaged, has none: the rest can be compared all the same.
    """
    found = {}
    for run_id in run_ids:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            matrix = json.loads(stored_text(client, client.get_run(run_id), "report.json") or "")["confusion_matrix"]
            if _counts(matrix):
                found[run_id] = matrix
    return found


def _counts(matrix: Any) -> bool:
    """Whether it is a square of counts."""
    return (
        isinstance(matrix, list)
        and len(matrix) > 1
        and all(
            isinstance(row, list)
            and len(row) == len(matrix)
            and all(type(n) is int and 0 <= n < MOST_IMAGES for n in row)
            for row in matrix
        )
    )


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


def _by_ids(client: Any, experiments: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """Runs by their ids, or by how these begin, as tables show them."""
    whole = ",".join(f"'{run_id}'" for run_id in wanted if len(run_id) >= WHOLE_ID)
    found = search(client, experiments, f"attributes.run_id IN ({whole})") if whole else []
    whole_ids = {run.info.run_id: run for run in found}
    usable, problems = dict[str, Any](), list[Problem]()
    for run_id in dict.fromkeys(wanted):
        try:
            run = whole_ids.get(run_id) or by_beginning(client, experiments, run_id, "runs")
        except Refused as refused:
            problems += refused.problems
            continue
        if "sweep" in run.data.tags:
            what = f"{run.info.run_id} is a sweep, which has runs beneath it"
            problems.append(Problem("runs", what, f"runs=[] sweep={run.info.run_id}"))
        else:
            usable[run_id] = run
    if problems:
        raise _without_them(problems, list(usable))
    unique = {run.info.run_id: run for run in usable.values()}
    return sorted(unique.values(), key=lambda run: run.info.start_time)


def _without_them(problems: Sequence[Problem], usable: Sequence[str]) -> Refused:
    """Refuse some of the runs that were asked for; where others can be used, those are the remedy."""
    remedy = f"runs=[{','.join(usable)}]"
    return Refused([replace(problem, remedy=remedy) if usable else problem for problem in problems])


def _sweep(client: Any, experiments: Sequence[str], config: CompareConfig) -> Any:
    """The parent run of a sweep."""
    which = config.sweep or "latest"
    if which == "latest":
        if found := search(client, experiments, "tags.sweep LIKE '%'", "start_time DESC", limit=1):
            return found[0]
        what = "no sweep is recorded; start one: python -m experiments.run -m seed=0,1,2"
        raise Refused(Problem("sweep", what, another_experiment(client, config)))
    found = by_beginning(client, experiments, which, "sweep")
    if "sweep" in found.data.tags:
        return found
    parent = found.data.tags.get("mlflow.parentRunId")
    what = f"{which} is a run of the sweep {parent}" if parent else f"{which} is a single run, no sweep"
    raise Refused(Problem("sweep", what, f"sweep={parent}" if parent else f"sweep=null runs=[{which}]"))


def _selection(title: str, found: Sequence[Any]) -> Selection:
    typed = " ".join(run.data.tags.get("overrides", "") for run in found)
    chosen = {word.lstrip("+").partition("=")[0] for word in typed.split()}
    runs = [_run(item) for item in found]
    keys = {key for run in runs for key in run.parameters if key.startswith(CIRCUMSTANCES)}
    asked_for = {key for key in chosen if key.startswith("runtime.")}  # the others cannot change even the speed
    return Selection(title, runs, frozenset(keys - asked_for))


def _run(item: Any) -> Run:
    info, data, metrics = item.info, item.data, measures(item)
    sections = {name: place for place, name in enumerate(Config.model_fields)}
    keys = sorted(data.params, key=lambda key: sections.get(key.partition(".")[0], len(sections)))
    return Run(
        run_id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        parameters={key: data.params[key] for key in keys},
        objective=metrics.get("objective"),
        seconds=seconds(item),
        metrics=metrics,
        failure=data.tags.get("failure", ""),
        measured=recorded_objective(data.tags, data.params),
        fingerprint=data.tags.get("fingerprint.config", ""),
        uuid=data.tags.get(UUID, ""),
    )
