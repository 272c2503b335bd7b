"""Records one run: appends what it says of itself to its journal, which the writer process delivers to MLflow."""

import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments.config import Config, Problem, Refused
from experiments.config.fingerprint import config_fingerprint, environment_flags, fingerprint, source_digest
from experiments.config.objective import MODEL_BYTES
from experiments.engine.checkpoints import Checkpoints
from experiments.tracking import index, lock, record
from experiments.tracking.journal import new_uuid, writing
from experiments.tracking.logged_model import KERAS_FILE
from experiments.tracking.lookup import Question, choose
from experiments.tracking.process import END_SECONDS, process_name
from experiments.tracking.provenance import environment, working_tree
from experiments.tracking.recording import Recording
from experiments.tracking.store import redact
from experiments.tracking.summary import CHECKPOINTS, PRUNED, PastRun
from experiments.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.task import Report

REPORT_FILE, EXAMPLE_FILE = "report.npz", "example.npy"


class Recorder(Recording):
    """Records one run. Does nothing with ``tracking=off``.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.

    Args:
        config: Of the run.

    Attributes:
        fingerprint: Of the run; empty until `find_before` has seen the data, and where nothing is recorded.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.tracking, "run", resume=config.resume)
        self.fingerprint = ""
        self._config = config
        self._system: SystemMetrics | None = None
        self._output: int | None = None  # the open folder of the run's output

    def find_before(self, dataset: "Dataset", output: Path) -> PastRun | None:
        """Claim the run, and ask the store whether it takes it; find an earlier run with the same fingerprint.

        Where the run is to be resumed, this waits for another process that trains the same one.

        Args:
            dataset: The data.
            output: The folder for the run's output.

        Returns:
            One that finished, else one that can go on; None if there is none, or none is asked for.

        Raises:
            Refused: Another run writes into that folder, or the store will not take the run.
        """
        self._keep_others_out(output)
        if not self.tracking.enabled:
            return None
        self.fingerprint = fingerprint(self._config, dataset.digest, dataset.sizes)
        claim = self._claim = index.Claim(self.fingerprint)
        if not self._resume:
            claim.take(patience=0)  # another process may train it, too, as was asked for
            if self._writer:
                self._writer.ask(Question())
            return None
        if not claim.take():
            print(f"resume: waits for {claim.holder()}, which trains the same run")
            while not claim.take(patience=3600):
                pass
        experiments = [self.tracking.experiment]
        here = self._here(claim, experiments)
        if self._writer:
            self._writer.ask(Question(experiments, self.fingerprint, config_fingerprint(self._config)))
        return choose(here, self._wait(), output)

    def _keep_others_out(self, output: Path) -> None:
        """Keep other runs out of a folder as long as this one is under way."""
        output.mkdir(parents=True, exist_ok=True)
        self._output = os.open(output, os.O_RDONLY)
        if not lock.hold(self._output):
            what = f"{output} is the output folder of another run that is under way; each needs one of its own"
            raise Refused(Problem("hydra.run.dir", what))

    def keep(self, finished: PastRun) -> None:
        """Deliver a run that finished before, if that waits; `recorded` says what came of it."""
        if self._writer and finished.is_here and not finished.delivered.complete:
            self._deliver(finished.folder)
            self._wait_for_delivery(finished.folder, END_SECONDS)

    @property
    def changed(self) -> str:
        """The id of a finished run of the same config, but with other code, data, versions or flags."""
        return self._wait().changed

    def start(
        self,
        dataset: "Dataset",
        chosen: Mapping[str, Any],
        overrides: Sequence[str],
        *,
        checkpoints: Checkpoints,
        before: PastRun | None = None,
    ) -> "Recorder":
        """Open the run, or one that was interrupted before. For use in a ``with`` statement.

        Args:
            dataset: The data.
            chosen: What ``runtime: auto`` became.
            overrides: Of the command.
            checkpoints: Of the run, in the folder of its output.
            before: The run to go on with.

        Raises:
            Refused: The store will not take it.
            RunFailed: It cannot be recorded.
        """
        if not self.tracking.enabled:
            return self
        self._wait()
        with writing():
            if before is not None:
                self._resume_run(before.folder, checkpoints)
            else:
                self._open(dataset, chosen, [redact(override) for override in overrides], checkpoints)
        if self.tracking.system_metrics:
            assert self.journal
            self._system = SystemMetrics(self.journal, self.known.values if self.known else ())
        return self

    def _open(
        self, dataset: "Dataset", chosen: Mapping[str, Any], overrides: Sequence[str], checkpoints: Checkpoints
    ) -> None:
        config, tracking, output = self._config, self.tracking, checkpoints.folder
        recorded = record.recorded_config(config)
        identity = {
            "fingerprint": self.fingerprint,
            "fingerprint.config": config_fingerprint(config),
            "fingerprint.code": source_digest(config.trust),
            "flags": " ".join(environment_flags()),
            "output_folder": str(output.absolute()),
            "process": process_name(os.getpid()),
        }
        assert self._claim
        own = self._begin(
            output,
            self._claim,
            experiment=tracking.experiment,
            name=redact(tracking.run_name or record.run_name(overrides)),
            parent=tracking.parent,
            tags={**record.tags_of(config, dataset, overrides), **identity},
            parameters=record.parameters_of(recorded, chosen),
            dataset=record.described(dataset),
        )
        own.add_file("config/config.yaml", OmegaConf.to_yaml(recorded))
        own.add_file("config/overrides.txt", "".join(f"{line}\n" for line in overrides))
        own.add_file("environment.txt", environment())
        if tracking.code and (tree := working_tree()) and tree.patch:
            own.add_file("code/uncommitted.patch", tree.patch)
        checkpoints.keep_in(own.folder / CHECKPOINTS)

    def _resume_run(self, folder: Path, checkpoints: Checkpoints) -> None:
        self._go_on(folder, "FAILED", "it was interrupted and no message")
        for epoch, metrics in enumerate(checkpoints.state.by_epoch if checkpoints.state else ()):
            self.log_epoch(epoch, metrics)  # it may have died before it could record one

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record metrics of epoch `epoch`, which is finished (counted from 0), at that step."""
        if self.journal is None:
            return
        known = self.known.values if self.known else ()  # recorded already, with the same values
        new = {name: float(value) for name, value in metrics.items() if (name, epoch) not in known}
        if new:
            self.journal.append("metrics", sync=False, step=epoch, values=new)

    def log_results(
        self,
        metrics: Mapping[str, float],
        history: Mapping[str, Any],
        report: "Report",
        weights_digest: str,
        pruned: int = 0,
    ) -> None:
        """Record the measures of the finished model, and what ``report.json`` and the figures are made of.

        If a search has stopped the run, `pruned` is the epoch after which it did.
        """
        if self.journal:
            self.log_epoch(len(history["loss"]) - 1, metrics)
            tags = {"weights.digest": weights_digest} | ({PRUNED: str(pruned)} if pruned else {})
            self.journal.append("tags", sync=False, tags=tags)
            self.journal.write(REPORT_FILE, record.packed_report(self._config.task.name, history, report))
            self.journal.append("report", file=REPORT_FILE)

    def log_model(self, model: Any, example: Any, step: int) -> dict[str, float]:
        """Record the Keras model of after epoch `step` (counted from 0); return the size of its file as a measure."""
        if self.journal is None:
            return {}
        if self.known and self.known.has_model:
            return {MODEL_BYTES: self.known.measures[MODEL_BYTES]}
        self.journal.write(KERAS_FILE, model.save)
        size = {MODEL_BYTES: float((self.journal.folder / KERAS_FILE).stat().st_size)}
        self.log_epoch(step, size)
        self.journal.write(EXAMPLE_FILE, record.packed(example))
        self.journal.append("model", uuid=new_uuid(), step=step, classes=model.output_shape[-1], example=EXAMPLE_FILE)
        return size

    def close(self) -> None:
        """Let go of what was not started."""
        super().close()
        if self._output is not None:
            os.close(self._output)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._system:
            self._system.stop()
        interrupt = _interrupt(error)
        status = "FINISHED" if error is None else "KILLED" if interrupt else "FAILED"
        text = redact("".join(traceback.format_exception(kind, error, trace))) if status == "FAILED" else ""
        if self.journal:
            self._end(status, text, record.failure_of(text), quietly=error is not None)
        if interrupt and interrupt is not error:
            raise interrupt


def _interrupt(error: BaseException | None) -> BaseException | None:
    """The interrupt behind an error: zipfile, for one, makes it a ValueError on its way."""
    behind = error
    while isinstance(behind, Exception):
        behind = behind.__context__
    return behind if behind is error or isinstance(behind, KeyboardInterrupt) else None
