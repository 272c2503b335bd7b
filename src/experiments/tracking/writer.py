"""Applies journals to MLflow. Every event can be applied again, so nothing is lost and nothing is there twice."""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from experiments.tracking import index, lock, logged_model, sweep_results
from experiments.tracking.client import experiment, open_store
from experiments.tracking.journal import (
    FILES,
    Delivered,
    Event,
    at_work,
    close_abandoned,
    delivered,
    note_delivered,
    opening,
    read,
    sync,
)
from experiments.tracking.places import own_file, put
from experiments.tracking.record import unpacked_report
from experiments.tracking.search import EARLIER_SECONDS, UUID, WENT_ON_AT
from experiments.tracking.store import reason, redact, sqlite_file, store_name

T = TypeVar("T")
# MLflow's limits for one request.
A_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
TRIES = 3  # of an event that is rejected: another writer may have been in the way; and of one that was not answered
QUICK_SECONDS = 1.0  # a call that failed later than that is not repeated at once, but for these reasons:
# a server closes connections that rest while pictures are drawn, and two writers may add the same row.
PASSES = re.compile("Connection aborted|UniqueViolation|UNIQUE constraint|Duplicate entry|[Dd]eadlock")
# Statuses by which a server, not an event, says that it cannot go on; beside those from 500 on.
NOT_NOW = (401, 403, 408, 429)
# How MLflow's client begins where what answered was no MLflow server: a proxy whose server is away, for one.
NOT_OF_MLFLOW = "API request to "
# What MLflow says of an error of its database.
OF_THE_DATABASE = "BAD_REQUEST"
DIED = "The training process died without a word: killed, or out of memory."


class Unavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The store can take nothing now; with what it said."""


class Deleted(Exception):  # noqa: N818 - a state, not a mistake
    """The run was deleted in the store; with its id."""


class Writer:
    """Applies journals to one store.

    Args:
        uri: The store. It is opened, or created, when the first event is applied.
    """

    def __init__(self, uri: str) -> None:
        self.name = store_name(uri)
        self._uri = uri
        self.opened = self.applied = 0  # how often it was opened, and how many events were applied
        self._client: Any = None
        self._file: tuple[int, int] | None = None
        self._held: sqlite3.Connection | None = None
        self._set_aside = list[str]()  # why parts of an event were rejected
        self._seen: set[Path] = set()  # journals whose runs were found in the store
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    @property
    def client(self) -> Any:
        """MLflow's client; a SQLite file that was removed or replaced since is opened, or made, anew."""
        if self._client is None or self._file != _identity(self._uri):
            self._seen.clear()
            self._experiments.clear()
            self._parents.clear()
            self._client = open_store(self._uri)
            self.opened += 1
            self._file = _identity(self._uri)
            self.close()
            if file := sqlite_file(self._uri):  # as long as it is open, its write-ahead log stays, which is faster
                self._held = sqlite3.connect(file, check_same_thread=False)
                self._held.execute("PRAGMA schema_version").close()
        return self._client

    def close(self) -> None:
        """Let go of the store."""
        if self._held:
            self._held.close()

    def deliver(
        self, folder: Path, *, close: bool = True, only_opening: bool = False, again: bool = False, patience: float = 0
    ) -> Delivered:
        """Apply what the store does not have of a journal.

        Args:
            folder: Of the journal.
            close: Close the journal before, if its process is gone without a word.
            only_opening: Leave the results of a sweep for later.
            again: Apply all of it, whatever the store is said to have.
            patience: How long to wait for another process that delivers it, in seconds.

        Raises:
            Unavailable: The store can take nothing now.
        """
        place = os.open(folder, os.O_RDONLY)
        try:
            if not lock.hold(place, patience):  # another process delivers it
                state = delivered(folder).get(self.name, Delivered())
                return state if state.complete else replace(state, trouble="another process is sending it")
            state = self._state(folder)
            state = replace(state, bytes=0, complete=False, rejected=()) if again else state
            if close and not state.complete and not at_work(folder):
                is_sweep = "sweep" in opening(folder).get("tags", ())  # which is resumed rather than mended
                close_abandoned(folder, *(("KILLED", "") if is_sweep else ("FAILED", DIED)))
            return self._deliver(folder, state, only_opening)
        except OSError as error:
            raise Unavailable(reason(error)) from error
        finally:
            os.close(place)

    def _deliver(self, folder: Path, state: Delivered, only_opening: bool) -> Delivered:
        batches = list(_batches(read(folder, state.bytes)))
        if batches:
            sync(folder)
        try:
            for batch, end in batches:
                kind = batch[0]["event"]
                if kind == "results" and (only_opening or _some_wait(batch[0]["rows"])):
                    return state
                state = self._applied(folder, batch, state)
                if not state.trouble:
                    state = replace(state, bytes=end, complete=kind == "closed")
                note_delivered(folder, self.name, state)
                if state.trouble:  # without a run nothing can be applied
                    return state
        except Deleted as gone:
            why = f"run {gone} was deleted there"
            (*_, last), end = batches[-1]
            state = Delivered(str(gone), end, complete=last["event"] == "closed", rejected=(why,))
            note_delivered(folder, self.name, state)
        except Unavailable as error:
            with suppress(OSError):
                note_delivered(folder, self.name, replace(state, trouble=str(error)))
            raise
        if state.complete and (uuid := opening(folder).get("uuid")):
            index.remove_waiting(uuid)
            if any(read(folder, state.bytes)):  # it has just been resumed
                index.add_waiting(uuid, folder)
        return state

    def _state(self, folder: Path) -> Delivered:
        """What the store has of a journal. Nothing, if it lacks the run, as its file is another one now."""
        state = delivered(folder).get(self.name, Delivered())
        if state.run_id:
            client = _asked(lambda: self.client)  # first: it may forget what was seen
            if folder not in self._seen and not _asked(lambda: _has(client, state.run_id)):
                return Delivered()
        self._seen.add(folder)
        return state

    def _applied(self, folder: Path, batch: Sequence[Event], state: Delivered) -> Delivered:
        """Apply an event, or several epochs at once. What is rejected for good is set aside with the reason."""
        why = ""
        for attempt in range(TRIES):
            try:
                self._set_aside = []
                run_id = _asked(lambda: APPLY[batch[0]["event"]](self, folder, batch, state.run_id))
                self.applied += 1
                aside = [f"{batch[0]['event']}: {why}" for why in self._set_aside]
                return replace(state, run_id=run_id, trouble="", rejected=(*state.rejected, *aside))
            except (Unavailable, Deleted):
                raise
            except Exception as error:  # what MLflow rejects, and what a damaged or foreign journal leads to
                why = f"{batch[0]['event']}: {redact(reason(error))}"
                if attempt + 1 < TRIES:
                    time.sleep(0.1)
        if batch[0]["event"] == "opened":
            return replace(state, trouble=why)
        return replace(state, trouble="", rejected=(*state.rejected, why))

    def _open_run(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        from mlflow.entities import Param

        (event,) = batch
        of_experiment = self._experiment(event["experiment"])
        found = self.find(event["uuid"], [of_experiment])
        if found is None:
            tags = dict(event["tags"]) | {UUID: event["uuid"]}
            if event["parent"]:
                tags["mlflow.parentRunId"] = self._parent(event["parent"])
            found = self.client.create_run(of_experiment, event["started"], tags, event["name"])
        if found.info.lifecycle_stage != "active":
            raise Deleted(found.info.run_id)
        run_id = str(found.info.run_id)
        self._log(run_id, "params", [Param(key, value) for key, value in event["parameters"].items()])
        if event["dataset"]:
            self.client.log_inputs(run_id, [_dataset_input(event["dataset"])])
        return run_id

    def _log(self, run_id: str, kind: str, items: Sequence[Any]) -> None:
        """Record metrics, params or tags, many in a request; one that is rejected does not take others with it."""
        from mlflow.exceptions import MlflowException

        for start in range(0, len(items), A_BATCH[kind]):
            batch = items[start : start + A_BATCH[kind]]
            try:
                self.client.log_batch(run_id, **{kind: batch})
            except MlflowException as error:
                if _is_temporary(error):
                    raise
                if len(batch) == 1:
                    self._set_aside.append(redact(reason(error)))
                    continue
                for item in batch:
                    self._log(run_id, kind, [item])

    def _log_metrics(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        from mlflow.entities import Metric

        points = [
            Metric(name, float(value), event["time"], event["step"])
            for event in batch
            for name, value in event["values"].items()
        ]
        self._log(run_id, "metrics", points)
        return run_id

    def _set_tags(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        from mlflow.entities import RunTag

        self._log(run_id, "tags", [RunTag(key, value) for key, value in batch[0]["tags"].items()])
        return run_id

    def _log_file(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        name = batch[0]["path"]
        put(self.client, self.client.get_run(run_id).info, own_file(folder, f"{FILES}/{name}"), name, self._uri)
        return run_id

    @contextmanager
    def _made(self, folder: Path, run_id: str) -> Iterator[Path]:
        """A new folder, whose files become artifacts of a run: in that of a foreign journal, any name may be a link."""
        with TemporaryDirectory(dir=folder) as name:
            made = Path(name)
            yield made
            info = self.client.get_run(run_id).info
            for file in filter(Path.is_file, made.rglob("*")):
                put(self.client, info, file, str(file.relative_to(made)), self._uri)

    def _log_report(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        """Draw the pictures of a run, and log them with its ``report.json``."""
        import json

        from experiments.task import pictures

        history, report = unpacked_report(own_file(folder, batch[0]["file"]).read_bytes())
        with self._made(folder, run_id) as made:
            (made / "figures").mkdir()
            (made / "report.json").write_text(json.dumps(report.as_json(), indent=2))
            figures = {"learning_curves": pictures.learning_curves(history, report.measures), **report.draw()}
            for name, figure in figures.items():
                figure.savefig(made / "figures" / f"{name}.png", **pictures.SAVED)
        return run_id

    def _log_model(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        logged_model.log(self.client, self.client.get_run(run_id), folder, batch[0], self._uri)
        return run_id

    def _log_results(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        """Log the table of a sweep, a report and a picture."""
        of_experiments = [self._experiment(name) for name in batch[0]["experiments"]]
        ids = self._ids([row["uuid"] for row in batch[0]["rows"]], of_experiments)
        rows = [{**row, "run_id": ids.get(row["uuid"], row["run_id"])} for row in batch[0]["rows"]]
        for row in rows:
            del row["uuid"]
        with self._made(folder, run_id) as made:
            sweep_results.write(self.client, of_experiments, run_id, rows, batch[0]["time"], made)
        return run_id

    def _ids(self, uuids: Sequence[str], experiments: Sequence[str]) -> dict[str, str]:
        """MLflow's ids of runs of ours, by their uuids."""
        found = {}
        for uuid in filter(None, uuids):
            if run := self.find(uuid, experiments):
                found[uuid] = str(run.info.run_id)
        return found

    def _resume(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        from mlflow.entities import RunTag

        (event,) = batch
        if "failure" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "failure")
        tags = {
            EARLIER_SECONDS: str(event["earlier"]),
            WENT_ON_AT: str(event["started"]),
            "process": event["process"],
            "resumed": str(event["number"]),
        }
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _close_run(self, folder: Path, batch: Sequence[Event], run_id: str) -> str:
        (event,) = batch
        if event["failure"]:
            self.client.set_tag(run_id, "failure", event["failure"])
        elif "failure" in self.client.get_run(run_id).data.tags:  # of an older copy of the journal
            self.client.delete_tag(run_id, "failure")
        try:
            if event["trace"]:
                with self._made(folder, run_id) as made:
                    (made / "traceback.txt").write_text(event["trace"])
        finally:  # whatever became of the traceback
            self.client.set_terminated(run_id, event["status"], event["time"])
        return run_id

    def _experiment(self, name: str) -> str:
        client = self.client  # first: it may forget the experiments
        if name not in self._experiments:
            self._experiments[name] = experiment(client, name, self._uri)
        return self._experiments[name]

    def _parent(self, uuid: str) -> str:
        """MLflow's id of a parent run: of a sweep of ours, or one that a user named by that id."""
        client = self.client
        if uuid not in self._parents:
            found = self.find(uuid, [each.experiment_id for each in client.search_experiments()])
            if found is None and not _has(client, uuid):
                raise ValueError(f"its sweep is not in the store yet, which has no run {uuid}")
            self._parents[uuid] = found.info.run_id if found else uuid
        return self._parents[uuid]

    def find(self, uuid: str, experiments: Sequence[str]) -> Any:
        """The run of ours with this uuid, also a deleted one; None if there is none."""
        from mlflow.entities import ViewType

        if not uuid.isalnum():
            raise ValueError(f"{uuid!r} is no uuid of a run")
        condition = f"tags.`{UUID}` = '{uuid}'"
        found = self.client.search_runs(list(experiments), condition, ViewType.ALL, 1, ["attributes.start_time ASC"])
        return found[0] if found else None


APPLY: Mapping[str, Callable[[Writer, Path, Sequence[Event], str], str]] = {
    "opened": Writer._open_run,
    "metrics": Writer._log_metrics,
    "tags": Writer._set_tags,
    "file": Writer._log_file,
    "report": Writer._log_report,
    "model": Writer._log_model,
    "results": Writer._log_results,
    "resumed": Writer._resume,
    "closed": Writer._close_run,
}


def _some_wait(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether runs of a sweep wait to be delivered: its results come after them."""
    return any(index.is_waiting(row["uuid"]) for row in rows)


def _batches(events: Iterator[tuple[Event, int]]) -> Iterator[tuple[list[Event], int]]:
    """Epochs that follow each other together, as one request; every other event by itself."""
    batch, points, last = list[Event](), 0, 0
    for event, end in events:
        count = len(event["values"]) if event["event"] == "metrics" else A_BATCH["metrics"]
        if batch and (points + count > A_BATCH["metrics"]):
            yield batch, last
            batch, points = [], 0
        batch.append(event)
        points, last = points + count, end
    if batch:
        yield batch, last


def _identity(uri: str) -> tuple[int, int] | None:
    """Which file a SQLite store is now; None for other stores."""
    if (file := sqlite_file(uri)) is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _has(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a proxy says 404, too
            raise
        return False
    return True


def _asked(call: Callable[[], T]) -> T:
    """Call a function that asks the store; again, where it fails at once or for a reason that passes.

    Raises:
        Unavailable: It can take nothing now.
    """
    for attempt in range(TRIES):
        began = time.monotonic()
        try:
            with _said_by_the_store():
                return call()
        except Unavailable as error:
            is_quick = time.monotonic() - began < QUICK_SECONDS
            if attempt + 1 == TRIES or not (is_quick or PASSES.search(str(error.__cause__))):
                raise
            time.sleep(0.1)
    raise AssertionError


@contextmanager
def _said_by_the_store() -> Iterator[None]:
    """Tell a store that can take nothing now from one that rejects what it is given.

    Raises:
        Unavailable: It can take nothing now.
    """
    try:
        yield
    except (Unavailable, Deleted):
        raise
    except Exception as error:
        if _is_temporary(error):
            raise Unavailable(redact(reason(error))) from error
        raise


def _is_temporary(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    answer = getattr(error, "response", None)  # of a server for artifacts
    if isinstance(error, MlflowException) and str(error).startswith(NOT_OF_MLFLOW):
        return True
    if isinstance(error, MlflowException):
        status = 500 if error.error_code == OF_THE_DATABASE else error.get_http_status_code()
    elif answer is not None and hasattr(answer, "status_code"):
        status = answer.status_code
    elif isinstance(error, FileNotFoundError):  # of the journal
        return False
    else:
        return isinstance(error, OSError | sqlite3.Error | SQLAlchemyError)
    return status >= 500 or status in NOT_NOW


def _dataset_input(described: Mapping[str, Any]) -> Any:
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=described["name"],
        digest=described["digest"][:32],  # MLflow takes 36 characters; the whole digest is a tag
        source_type="local",
        source=json.dumps({"uri": described["source"]}),
        profile=json.dumps(described["profile"]),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
