"""The query to a store before anything is recorded in it, and which runs count by its answer."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tracking.store import reason, redact
from experiments.tracking.summary import PastRun

DELETED = "DELETED"
MOST_RUNS = 100  # of one fingerprint
IDS_A_QUERY = 200
# Statuses by which a server refuses for good.
REFUSALS = (401, 403, 404)


class Question(NamedTuple):
    """A query to a store.

    Attributes:
        experiments: MLflow experiments to look in.
        fingerprint: Runs of it are looked for; empty: none are.
        config: A fingerprint without code, data and versions; a finished run of it is looked for.
        sweep: What equal sweeps have in common; the runs of the latest one are looked for.
        run_ids: Runs that are said to be there.
        data: The digest of a data set; the latest finished runs on it are looked for.
    """

    experiments: Sequence[str] = ()
    fingerprint: str = ""
    config: str = ""
    sweep: str = ""
    run_ids: Sequence[str] = ()
    data: str = ""


class Answer(NamedTuple):
    """A store's answer to a `Question`.

    Attributes:
        refused: Why it will take no run, as an address or a password is wrong; empty: it does.
        away: Why it takes nothing now; empty: it does.
        runs: Those that were looked for, the latest first.
        changed: The id of a finished run of the same config, with other code, data or versions.
    """

    refused: str = ""
    away: str = ""
    runs: Sequence[PastRun] = ()
    changed: str = ""


def open_to_read(uri: str) -> Any:
    """MLflow's client of a store, which stays as it is; None if there is none yet."""
    from experiments.tracking.client import missing_file
    from experiments.tracking.search import connect

    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"  # SQLite's files beside a store go with a connection
    return None if missing_file(uri) else connect(uri)


def look_up(uri: str, question: Question, opened: Callable[[str], Any] | None = None) -> Answer:
    """Ask a store.

    Args:
        uri: The store.
        question: What is asked.
        opened: Gives MLflow's client; None if there is no store yet.
    """
    from experiments.tracking.client import import_mlflow, open_existing_store

    import_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        client = (opened or open_existing_store)(uri)
        if client is None:
            return Answer()
        found = (client.get_experiment_by_name(name) for name in question.experiments)
        ids = [each.experiment_id for each in found if each is not None]
        if not ids:
            return Answer()
        return Answer(runs=list(_runs(client, ids, question)), changed=_changed(client, ids, question.config))
    except MlflowException as error:
        said = redact(reason(error))
        never = error.get_http_status_code() in REFUSALS or re.search("NameResolution|refused", said)
        return Answer(refused=said) if never else Answer(away=said)
    except Exception as error:  # whatever a driver or a library for HTTP raises
        return Answer(away=redact(reason(error)))


def finished_on(uri: str, experiments: Sequence[str], digests: Collection[str]) -> tuple[list[PastRun], str]:
    """The latest finished runs on data sets, by their digests; and why the store could not be read, if so."""
    found = [look_up(uri, Question(experiments, data=digest), open_to_read) for digest in digests]
    runs = [run for answer in found for run in answer.runs if run.status == "FINISHED"]
    return runs, next((answer.refused or answer.away for answer in found), "")


def _runs(client: Any, ids: Sequence[str], question: Question) -> Iterator[PastRun]:
    conditions = [f"tags.fingerprint = '{question.fingerprint}'"] if question.fingerprint else []
    if question.data:
        conditions.append(f"tags.`dataset.digest` = '{question.data}' and attributes.status = 'FINISHED'")
    if question.sweep:
        parents = client.search_runs(ids[:1], f"tags.sweep = '{question.sweep}'", max_results=1)
        conditions += [f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'" for parent in parents]
    for start in range(0, len(question.run_ids), IDS_A_QUERY):
        listed = ",".join(f"'{run_id}'" for run_id in question.run_ids[start : start + IDS_A_QUERY])
        conditions.append(f"attributes.run_id IN ({listed})")
    from mlflow.entities import ViewType

    for condition in conditions:
        limit = MOST_RUNS if condition.startswith(("tags.fingerprint", "tags.`dataset")) else 50_000
        for run in client.search_runs(ids, condition, ViewType.ALL, limit, ["attributes.start_time DESC"]):
            yield past_run(run)


def past_run(run: Any) -> PastRun:
    """A run as MLflow has it."""
    from experiments.tracking.search import UUID, measures, seconds, status

    return PastRun(
        uuid=run.data.tags.get(UUID, ""),
        opened={"tags": run.data.tags, "parameters": run.data.params},
        status=status(run) if run.info.lifecycle_stage == "active" else DELETED,
        objective=measures(run).get("objective"),
        measures=measures(run),
        seconds=seconds(run) or 0.0,
        stored_id=run.info.run_id,
    )


def _changed(client: Any, ids: Sequence[str], config: str) -> str:
    if not config:
        return ""
    same = f"tags.`fingerprint.config` = '{config}' and attributes.status = 'FINISHED'"
    found = client.search_runs(ids, same, max_results=1, order_by=["start_time DESC"])
    return found[0].info.run_id if found else ""


def choose(here: Sequence[PastRun], answer: Answer, output: Path) -> PastRun | None:
    """The run to keep, or to go on with: one that a retry of a sweep left, one that finished, one that was interrupted.

    Args:
        here: Runs with a journal here, the latest first.
        answer: What the store said.
        output: Folder of the run's output.
    """
    here = [run for run in here if not is_gone(run, answer)]
    left = [run for run in here if run.status != "FINISHED" and _can_go_on(run)]
    if own := [run for run in left if run.output.absolute() == output.absolute()]:
        return own[0]
    finished = [run for run in (*answer.runs, *here) if run.status == "FINISHED"]
    finished = [run for run in finished if run.objective is not None]
    return next(iter([*finished, *left]), None)


def is_gone(run: PastRun, answer: Answer) -> bool:
    """Whether a run with a journal here does not count: it was deleted in the store, or the store is another one now.

    An interrupted run that the store lacks counts: all of it is delivered when it goes on.
    """
    state = run.delivered
    if state.gone or answer.away or not state.run_id:
        return state.gone
    stored = {each.run_id: each.status for each in answer.runs}
    lacking = DELETED if run.status == "FINISHED" and state.complete else ""
    return stored.get(state.run_id, lacking) == DELETED


def _can_go_on(run: PastRun) -> bool:
    """Whether an interrupted run has a checkpoint, or was not measured yet."""
    if not run.opened.get("dataset"):  # its process died before it had described itself
        return False
    measured = any(not name.startswith("system/") for name, _ in run.values)
    return not measured or any(run.checkpoints.glob("*.npz"))
