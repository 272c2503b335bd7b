"""The launcher's side of a sweep's record. Does nothing with ``tracking=off``."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from experiments.config import Problem, Refused
from experiments.config.schema import Tracking
from experiments.tracking.process import RecordingProcess, start
from experiments.tracking.store import redact, store_uri
from experiments.tracking.sweep_record import Child, Sweep

# Overrides that say how a sweep is carried out, not what it is.
HOW = ("resume", "trust", "tracking")


class SweepRecorder:
    """Records a sweep as a parent run.

    Args:
        tracking: Where.
        connect: Gives a connection to a recording process, as `experiments.tracking.process.start` does.

    Attributes:
        run_id: MLflow's id of the parent run; empty where nothing is recorded.
    """

    def __init__(self, tracking: Tracking, connect: Callable[[str, str], Connection] = start) -> None:
        self.run_id = ""
        self._tracking = tracking
        self._process = None
        if tracking.enabled:
            self._process = RecordingProcess(connect(store_uri(tracking), "sweep_record.SweepRecord"))

    def open(
        self, experiments: Sequence[str], overrides: Sequence[str], swept: Mapping[str, str], resume: bool
    ) -> list[Child]:
        """Open the store; return the runs of the same sweep before, the latest first. Nothing is recorded yet.

        Args:
            experiments: The MLflow experiments of the runs.
            overrides: Of the command.
            swept: The values that are swept, by key.
            resume: Go on with the latest sweep of the same command.

        Raises:
            Refused: That one is under way.
        """
        if self._process is None:
            return []
        what = sorted(override for override in overrides if not override.lstrip("+").startswith(HOW))
        identity = hashlib.sha256("\n".join(what).encode()).hexdigest()
        told, values = [redact(item) for item in overrides], {key: redact(value) for key, value in swept.items()}
        opened = self._process.call("open", Sweep(self._tracking, list(experiments), told, identity, values), resume)
        if opened.under_way:
            raise Refused(
                Problem(
                    "resume", f"the sweep {opened.run_id} is under way; wait for it, or start another", "resume=false"
                )
            )
        return list(opened.children)

    def begin(self) -> None:
        """Open the parent run."""
        if self._process:
            self.run_id = self._process.call("begin")

    def import_ahead(self) -> None:
        """Have imported what the end needs; do not wait."""
        if self._process and self.run_id:
            self._process.send("import_ahead")

    def attach(self, experiments: Sequence[str]) -> None:
        """Look after runs of these experiments that have no parent."""
        if self._process:
            self._process.call("attach", list(experiments))

    def settle(self, pid: int, status: str, reason: str, name: str, tags: Mapping[str, str]) -> Child | None:
        """See to it that the run of a worker process that ended without success is recorded, and not as running."""
        if self._process is None:
            return None
        told = {key: redact(value) for key, value in tags.items()}
        settled: Child = self._process.call("settle", pid, status, redact(reason), redact(name), told)
        return settled

    def children(self, settle: bool) -> list[Child]:
        """The runs beneath the parent run, the latest first; to settle them, wait until none is running, or end it."""
        return self._process.call("children", settle) if self._process else []

    def end(self, status: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the ranked results, and end the parent run."""
        if self._process:
            self._process.call("end", status, list(rows))
