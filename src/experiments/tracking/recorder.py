"""The training process's side of a run's record: hands everything to a process of its own."""

import os
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from experiments.checkpoints import Checkpoints
from experiments.config import Config, Problem, Refused, RunFailed
from experiments.config.fingerprint import config_fingerprint, environment_flags, fingerprint, source_digest
from experiments.config.schema import Tracking
from experiments.tracking.process import Failure, RecordingProcess, process_name, start
from experiments.tracking.store import redact, store_uri

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.evaluation import Report
    from experiments.tracking.record import Before


class Recorder:
    """Records one run. Does nothing with ``tracking=off``.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.

    Attributes:
        run_id: MLflow's id of the run, known at the end.
    """

    def __init__(self, config: Tracking) -> None:
        self.run_id = ""
        self._process = RecordingProcess(start(store_uri(config), "record.Record")) if config.enabled else None

    def connect(self) -> None:
        """Have the store opened, or created. Nothing is created before this, as the input may yet be refused."""
        if self._process is not None:
            self._process.send("connect")

    def find_before(self, config: Config, dataset: "Dataset") -> "Before | None":
        """Find an earlier run with the same config, code and data: one that finished, else one that can go on.

        Beneath the same parent, if the run has one.

        Raises:
            Refused: It is under way.
        """
        if self._process is None:
            return None
        before: Before | None = self._process.call(
            "find_before", config, fingerprint(config, dataset.digest, dataset.sizes)
        )
        if before and before.under_way:
            what = f"the run {before.run_id} of this config is under way; wait for it, or start another"
            raise Refused(Problem("resume", what, "resume=false"))
        return before

    def find_changed(self, config: Config) -> str:
        """Find a finished run of the same config with other code, data, versions or flags: its id, or nothing."""
        return (
            "" if self._process is None else str(self._process.call("find_changed", config, config_fingerprint(config)))
        )

    def start(
        self,
        config: Config,
        dataset: "Dataset",
        chosen: Mapping[str, Any],
        overrides: Sequence[str],
        *,
        checkpoints: Checkpoints,
        before: "Before | None" = None,
    ) -> "Recorder":
        """Open the run, or one that was interrupted before. For use in a ``with`` statement.

        Args:
            config: The config.
            dataset: The data.
            chosen: What ``runtime: auto`` became.
            overrides: Of the command.
            checkpoints: Of the run, in the folder of its output.
            before: The run to go on with.
        """
        self._folder = checkpoints.folder
        process = process_name(os.getpid())
        if self._process is None:
            return self
        if before is not None:
            self._process.send("go_on", config, before.run_id, process)
            for epoch, metrics in enumerate(checkpoints.state.by_epoch if checkpoints.state else ()):
                self.log_epoch(epoch, metrics)  # it may have died before it could record one
            return self
        identity = {
            "fingerprint": fingerprint(config, dataset.digest, dataset.sizes),
            "fingerprint.config": config_fingerprint(config),
            "fingerprint.code": source_digest(config.trust),
            "flags": " ".join(environment_flags()),
            "output_folder": str(checkpoints.folder.absolute()),
            "process": process,
        }
        overrides = [redact(override) for override in overrides]
        self._process.send("start", config, _described(dataset), chosen, overrides, identity)
        return self

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a finished epoch (counted from 0) at that step."""
        if self._process is not None:
            self._process.raise_failure()
            self._process.send("log_metrics", dict(metrics), epoch)

    def log_results(
        self, metrics: Mapping[str, float], history: Mapping[str, Any], report: "Report", weights_digest: str
    ) -> None:
        """Record the measures of the finished model, ``report.json`` and the figures."""
        if self._process is not None:
            self._process.send("log_metrics", dict(metrics), len(history["loss"]) - 1)
            self._process.send("tag", {"weights.digest": weights_digest})
            self._process.send("log_report", dict(history), report)

    def log_model(self, model: Any, example: Any, step: int) -> None:
        """Record the Keras model of after epoch `step` (counted from 0), with signature and an example of its input."""
        if self._process is not None:
            file = self._folder / "model.keras"  # from where MLflow takes it; left by a run that is killed meanwhile
            model.save(file)
            self._process.send("log_model", str(file), example, model.output_shape[-1], step)

    def close(self) -> None:
        """Let go of what was not started."""
        if self._process is not None:
            self._process.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupt = _interrupt(error)
        status = "FINISHED" if error is None else "KILLED" if interrupt else "FAILED"
        text = redact("".join(traceback.format_exception(kind, error, trace))) if status == "FAILED" else ""
        if self._process is not None:
            try:
                self.run_id, failure = self._process.end(status, text)
            except RunFailed as gone:
                failure = Failure(gone)
            if failure and error is None:
                raise RunFailed(failure)
        if interrupt and interrupt is not error:
            raise interrupt


def _interrupt(error: BaseException | None) -> BaseException | None:
    """The interrupt behind an error: zipfile, for one, makes it a ValueError on its way."""
    behind = error
    while isinstance(behind, Exception):
        behind = behind.__context__
    return behind if behind is error or isinstance(behind, KeyboardInterrupt) else None


def _described(dataset: "Dataset") -> dict[str, Any]:
    parts = {"train": dataset.train, "validation": dataset.validation or (), "test": dataset.test}
    sizes = {name: len(part) for name, part in parts.items()}
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "source": dataset.source,
        "profile": sizes | {"classes": dataset.classes, "input_shape": dataset.input_shape},
    }
