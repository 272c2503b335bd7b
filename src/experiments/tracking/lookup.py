"""What a store is asked before anything is recorded in it: whether it takes runs, and whether they ran before."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from experiments.tracking.store import reason, redact

CHECKPOINTS = "checkpoints"  # a folder beside a run's journal
DELETED = "DELETED"
MOST_RUNS = 100  # of one fingerprint
IDS_A_QUERY = 200
# Statuses by which a server refuses for good.
REFUSALS = (401, 403, 404)


@dataclass(frozen=True)
class PastRun:
    """A run that was recorded before, in a store or, not delivered yet, here.

    Attributes:
        run_id: MLflow's; empty as long as it is not known.
        status: RUNNING, FINISHED, FAILED, KILLED or DELETED.
        objective: What it is ranked by; None: it was not measured.
        threads: How many it had, as text; empty: not recorded.
        journal: The folder of its journal; empty: not here.
        uuid: Its own id, which the journal and the store have.
    """

    run_id: str
    status: str
    objective: float | None
    seconds: float
    tags: Mapping[str, str] = field(repr=False)
    threads: str = ""
    journal: str = ""
    uuid: str = ""

    @property
    def name(self) -> str:
        """How it is called in a message."""
        return f"run {self.run_id}" if self.run_id else f"the run in {self.output}"

    @property
    def output(self) -> Path:
        """The folder of its output, where its journal is here."""
        return Path(self.journal).parent

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return Path(self.journal, CHECKPOINTS)


class Question(NamedTuple):
    """What a store is asked.

    Attributes:
        experiments: MLflow experiments to look in.
        fingerprint: Runs of it are looked for; empty: none are.
        config: A fingerprint without code, data and versions; a finished run of it is looked for.
        sweep: What equal sweeps have in common; the runs of the latest one are looked for.
        run_ids: Runs that are said to be there.
    """

    experiments: Sequence[str] = ()
    fingerprint: str = ""
    config: str = ""
    sweep: str = ""
    run_ids: Sequence[str] = ()


class Answer(NamedTuple):
    """What a store said.

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


def look_up(uri: str, question: Question) -> Answer:
    """Ask a store."""
    from mlflow.exceptions import MlflowException

    from experiments.tracking.client import open_existing_store

    try:
        client = open_existing_store(uri)
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


def _runs(client: Any, ids: Sequence[str], question: Question) -> Iterator[PastRun]:
    conditions = [f"tags.fingerprint = '{question.fingerprint}'"] if question.fingerprint else []
    if question.sweep:
        parents = client.search_runs(ids[:1], f"tags.sweep = '{question.sweep}'", max_results=1)
        conditions += [f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'" for parent in parents]
    for start in range(0, len(question.run_ids), IDS_A_QUERY):
        listed = ",".join(f"'{run_id}'" for run_id in question.run_ids[start : start + IDS_A_QUERY])
        conditions.append(f"attributes.run_id IN ({listed})")
    from mlflow.entities import ViewType

    for condition in conditions:
        limit = MOST_RUNS if condition.startswith("tags.fingerprint") else 50_000
        for run in client.search_runs(ids, condition, ViewType.ALL, limit, ["attributes.start_time DESC"]):
            yield past_run(run)


def past_run(run: Any) -> PastRun:
    """A run as MLflow has it."""
    from experiments.tracking.search import UUID, measures, seconds

    return PastRun(
        run.info.run_id,
        run.info.status if run.info.lifecycle_stage == "active" else DELETED,
        measures(run).get("objective"),
        seconds(run) or 0.0,
        run.data.tags,
        run.data.params.get("runtime.threads", ""),
        uuid=run.data.tags.get(UUID, ""),
    )


def _changed(client: Any, ids: Sequence[str], config: str) -> str:
    if not config:
        return ""
    same = f"tags.`fingerprint.config` = '{config}' and attributes.status = 'FINISHED'"
    found = client.search_runs(ids, same, max_results=1, order_by=["start_time DESC"])
    return found[0].info.run_id if found else ""
