"""The events of a journal, applied to MLflow. Each can be applied again: nothing is there twice."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from experiments.tracking import logged_model, sweep_results
from experiments.tracking.connection import Store
from experiments.tracking.failures import Deleted, is_temporary
from experiments.tracking.journal import FILES, Event
from experiments.tracking.places import own_file, put
from experiments.tracking.record import unpacked_report
from experiments.tracking.search import EARLIER_SECONDS, UUID, WENT_ON_AT
from experiments.tracking.store import reason, redact

# MLflow's limits for one request.
A_BATCH = {"metrics": 1000, "params": 100, "tags": 100}


@dataclass
class Target:
    """The run in a store to which events are applied.

    Attributes:
        store: The store.
        folder: Of the journal.
        run_id: MLflow's id of the run; empty before it is opened.
        rejected: Why parts of an event were rejected.
    """

    store: Store
    folder: Path
    run_id: str
    rejected: list[str] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """MLflow's client."""
        return self.store.client

    @property
    def run(self) -> Any:
        """The run as MLflow has it."""
        return self.client.get_run(self.run_id)

    def log(self, kind: str, items: Sequence[Any]) -> None:
        """Record metrics, params or tags, many in a request; one that is rejected does not take others with it."""
        for start in range(0, len(items), A_BATCH[kind]):
            batch = items[start : start + A_BATCH[kind]]
            try:
                self.client.log_batch(self.run_id, **{kind: batch})
            except MlflowException as error:
                if is_temporary(error):
                    raise
                if len(batch) == 1:
                    self.rejected.append(redact(reason(error)))
                    continue
                for item in batch:
                    self.log(kind, [item])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self.log("tags", [RunTag(key, value) for key, value in tags.items()])

    def remove_failure(self) -> None:
        """Remove the reason why the run failed, if there is one."""
        if "failure" in self.run.data.tags:
            self.client.delete_tag(self.run_id, "failure")

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A new folder, whose files become artifacts: in the folder of a foreign journal, any name may be a link."""
        with TemporaryDirectory(dir=self.folder) as name:
            made = Path(name)
            yield made
            info = self.run.info
            for file in filter(Path.is_file, made.rglob("*")):
                put(self.client, info, file, str(file.relative_to(made)), self.store.uri)


def open_run(to: Target, event: Event) -> None:
    """Find the run, or create it, and record its parameters and its data set."""
    experiment = to.store.experiment(event["experiment"])
    found = to.store.find(event["uuid"], [experiment])
    if found is None:
        tags = dict(event["tags"]) | {UUID: event["uuid"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = to.store.parent(event["parent"])
        found = to.client.create_run(experiment, event["started"], tags, event["name"])
    if found.info.lifecycle_stage != "active":
        raise Deleted(found.info.run_id)
    to.run_id = str(found.info.run_id)
    to.log("params", [Param(key, value) for key, value in event["parameters"].items()])
    if described := event["dataset"]:
        dataset = Dataset(
            name=described["name"],
            digest=described["digest"][:32],  # MLflow takes 36 characters; the whole digest is a tag
            source_type="local",
            source=json.dumps({"uri": described["source"]}),
            profile=json.dumps(described["profile"]),
        )
        to.client.log_inputs(to.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def log_metrics(to: Target, *events: Event) -> None:
    """Record metrics of one or more epochs."""
    points = [
        Metric(name, float(value), event["time"], event["step"])
        for event in events
        for name, value in event["values"].items()
    ]
    to.log("metrics", points)


def set_tags(to: Target, event: Event) -> None:
    """Set tags."""
    to.set_tags(event["tags"])


def log_file(to: Target, event: Event) -> None:
    """Add a file of the journal to the artifacts."""
    name = event["path"]
    put(to.client, to.run.info, own_file(to.folder, f"{FILES}/{name}"), name, to.store.uri)


def log_report(to: Target, event: Event) -> None:
    """Draw the pictures of a run, and log them with its ``report.json``."""
    from experiments.task import pictures

    history, report = unpacked_report(own_file(to.folder, event["file"]).read_bytes())
    with to.artifacts() as made:
        (made / "figures").mkdir()
        (made / "report.json").write_text(json.dumps(report.as_json(), indent=2))
        figures = {"learning_curves": pictures.learning_curves(history, report.measures), **report.draw()}
        for name, figure in figures.items():
            figure.savefig(made / "figures" / f"{name}.png", **pictures.SAVED)


def log_model(to: Target, event: Event) -> None:
    """Log the Keras model."""
    logged_model.log(to.client, to.run, to.folder, event, to.store.uri)


def log_results(to: Target, event: Event) -> None:
    """Log the table of a sweep, a report and a picture."""
    experiments = [to.store.experiment(name) for name in event["experiments"]]
    rows = []
    for row in event["rows"]:
        found = to.store.find(row["uuid"], experiments) if row["uuid"] else None
        run_id = str(found.info.run_id) if found else row["run_id"]
        rows.append({key: value for key, value in {**row, "run_id": run_id}.items() if key != "uuid"})
    with to.artifacts() as made:
        sweep_results.write(to.client, experiments, to.run_id, rows, event["time"], made)


def resume_run(to: Target, event: Event) -> None:
    """Set a resumed run to RUNNING again."""
    to.remove_failure()
    to.set_tags(
        {
            EARLIER_SECONDS: str(event["earlier"]),
            WENT_ON_AT: str(event["started"]),
            "process": event["process"],
            "resumed": str(event["number"]),
        }
    )
    to.client.update_run(to.run_id, status="RUNNING")


def close_run(to: Target, event: Event) -> None:
    """End the run; with the reason and the traceback, if it failed."""
    if event["failure"]:
        to.set_tags({"failure": event["failure"]})
    else:
        to.remove_failure()  # of an older copy of the journal
    try:
        if event["trace"]:
            with to.artifacts() as made:
                (made / "traceback.txt").write_text(event["trace"])
    finally:  # whatever became of the traceback
        to.client.set_terminated(to.run_id, event["status"], event["time"])


APPLY: Mapping[str, Callable[..., None]] = {
    "opened": open_run,
    "metrics": log_metrics,
    "tags": set_tags,
    "file": log_file,
    "report": log_report,
    "model": log_model,
    "results": log_results,
    "resumed": resume_run,
    "closed": close_run,
}


def batches(events: Iterator[tuple[Event, int]]) -> Iterator[tuple[list[Event], int]]:
    """Put epochs that follow each other together, as one request; every other event by itself.

    Args:
        events: Of a journal, each with the byte behind it.
    """
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
