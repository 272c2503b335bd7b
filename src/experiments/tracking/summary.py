"""What a journal says of its run so far, and the end of one whose process is gone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.objective import broken
from experiments.tracking.delivered import Delivered, delivered_to
from experiments.tracking.journal import JOURNAL, Journal, is_sweep, opening, read

CHECKPOINTS = "checkpoints"  # a folder beside a run's journal
NOWHERE = Path(os.devnull)
# Tags of a run of a search: the epoch after which it was stopped, and the largest values of its measures, as JSON.
PRUNED, CONSTRAINTS = "pruned", "constraints"
ENDED_WELL = ("FINISHED", "PRUNED", "INFEASIBLE")


@dataclass(frozen=True)
class PastRun:
    """A run that was recorded before, as its journal says, or as a store has it.

    Attributes:
        folder: Of the journal; the run's output is in the folder around it. `NOWHERE`: the journal is not here.
        uuid: The run's own id, which the journal and the store have.
        opened: The first event; empty: the run did not come that far.
        status: RUNNING, FINISHED, PRUNED, INFEASIBLE, FAILED, KILLED or DELETED; RUNNING also if its
            process was killed.
        objective: What the run is ranked by; None: it was not measured.
        seconds: What it took, without pauses before it was resumed.
        failure: Why it failed.
        values: Of the metrics that its journal has, by name and step.
        measures: The last value of each metric.
        pruned: The epoch after which a search stopped it; 0: none did.
        resumed: How often it went on.
        has_model: Whether its model is there.
        time: Of the last event, in milliseconds since 1970.
        stored_id: MLflow's id of the run, if the store was asked.
    """

    folder: Path = NOWHERE
    uuid: str = ""
    opened: Mapping[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    objective: float | None = None
    seconds: float = 0.0
    failure: str = ""
    values: Mapping[tuple[str, int], float] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    pruned: int = 0
    resumed: int = 0
    has_model: bool = False
    time: int = 0
    stored_id: str = ""

    @property
    def is_here(self) -> bool:
        """Whether its journal is here."""
        return self.folder != NOWHERE

    @property
    def has_ended_well(self) -> bool:
        """Whether it finished, or was stopped by a search."""
        return self.status in ENDED_WELL

    @property
    def run_id(self) -> str:
        """MLflow's id; empty as long as it is not known."""
        return self.stored_id or self.delivered.run_id

    @property
    def name(self) -> str:
        """How it is called in a message."""
        return f"run {self.run_id}" if self.run_id else f"the run in {self.output}"

    @property
    def tags(self) -> Mapping[str, str]:
        """The run's tags, as it opened."""
        return dict(self.opened.get("tags", {})) | ({"failure": self.failure} if self.failure else {})

    @property
    def parameters(self) -> Mapping[str, str]:
        """Its parameters, by their dotted keys."""
        return dict(self.opened.get("parameters", {}))

    @property
    def threads(self) -> str:
        """How many threads it had; empty: not recorded."""
        return str(self.parameters.get("runtime.threads", ""))

    @property
    def output(self) -> Path:
        """The folder of the run's output."""
        return self.folder.parent

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def delivered(self) -> Delivered:
        """What the store that the run was started with has of it."""
        return self.delivered_to(self.opened.get("store", ""))

    def delivered_to(self, store: str) -> Delivered:
        """What a store has of it."""
        return delivered_to(self.folder, store)

    def is_in(self, store: str, experiments: Sequence[str]) -> bool:
        """Whether the run is one of a store, by its name, and of one of these experiments."""
        return self.opened.get("store") == store and self.opened.get("experiment") in experiments


def summary(folder: Path) -> PastRun:
    """Sum up a journal."""
    said: dict[str, Any] = {}
    values, measures, pruned = dict[tuple[str, int], float](), dict[str, float](), 0
    began, last, seconds = 0, 0, 0.0
    for event, _ in read(folder):
        kind, last = event["event"], event["time"]
        if kind == "opened":
            said |= {"uuid": event["uuid"], "opened": event}
            began = event["started"]
        elif kind == "resumed":
            said |= {"status": "RUNNING", "failure": "", "resumed": said.get("resumed", 0) + 1}
            began, seconds = event["started"], event["earlier"]
        elif kind == "metrics":
            values |= {(name, event["step"]): value for name, value in event["values"].items()}
            measures |= event["values"]
        elif kind == "tags":
            pruned = int(event["tags"].get(PRUNED, 0))
        elif kind == "model":
            said["has_model"] = True
        elif kind == "closed":
            tags = said.get("opened", {}).get("tags", {}) | ({PRUNED: str(pruned)} if pruned else {})
            said |= {"status": status_of(event["status"], tags, measures), "failure": event["failure"]}
    taken = seconds + max(last - began, 0) / 1000
    said |= {"values": values, "measures": measures, "objective": measures.get("objective"), "pruned": pruned}
    return PastRun(folder, **said, seconds=taken, time=last)


def status_of(status: str, tags: Mapping[str, str], measures: Mapping[str, float]) -> str:
    """A run's status; PRUNED or INFEASIBLE where MLflow has FINISHED, but a search stopped it or cannot use it."""
    if status not in ("FINISHED", "INFEASIBLE"):  # a run that one search cannot use may do for another
        return status
    return "PRUNED" if PRUNED in tags else "INFEASIBLE" if broken(tags.get(CONSTRAINTS, ""), measures) else "FINISHED"


def close_abandoned(folder: Path, status: str, reason: str) -> bool:
    """Close the journal of a process that is gone, unless it is closed; whether it is closed now.

    Its last event says when the run ended: it may be closed days later.

    Args:
        folder: Of the journal.
        status: FAILED or KILLED.
        reason: Why, in words.
    """
    try:
        with Journal(folder) as left:
            found = summary(folder)
            if found.status == "RUNNING" and found.opened:
                ended = max([found.time, *_times_beneath(found)])
                trace = f"{reason}\n" if reason else ""
                left.append("closed", time=ended, status=status, failure=reason[:500], trace=trace)
    except OSError:  # its process is at work on it
        return False
    return True


def _times_beneath(sweep: PastRun) -> Iterator[int]:
    """The times of the last events of a sweep's runs: the sweep's own journal gets none meanwhile."""
    for file in sweep.output.rglob(JOURNAL) if is_sweep(sweep.opened) else ():
        if opening(file.parent).get("parent") == sweep.uuid:
            yield summary(file.parent).time
