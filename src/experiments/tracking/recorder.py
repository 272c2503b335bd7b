"""Records one run: appends what it says of itself to its journal, which the writer process delivers to MLflow."""

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments.config import Config, Problem, Refused, RunFailed
from experiments.config.fingerprint import config_fingerprint, environment_flags, fingerprint, source_digest
from experiments.config.problems import assign
from experiments.engine.checkpoints import Checkpoints
from experiments.tracking import index, journal, lock, record
from experiments.tracking.journal import Journal, Summary
from experiments.tracking.logged_model import KERAS_FILE
from experiments.tracking.lookup import CHECKPOINTS, DELETED, Answer, PastRun, Question
from experiments.tracking.process import END_SECONDS, WriterProcess, process_name
from experiments.tracking.provenance import environment, working_tree
from experiments.tracking.store import redact, store_name, store_uri
from experiments.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.task import Report

REPORT_FILE, EXAMPLE_FILE = "report.npz", "example.npy"
PATIENCE = {"KILLED": 5.0}  # seconds for the delivery of a run that was interrupted


class Recorder:
    """Records one run. Does nothing with ``tracking=off``.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.

    Args:
        config: Of the run.

    Attributes:
        fingerprint: Of the run; empty until `find_before` has seen the data, and where nothing is recorded.
        recorded: Where the run is recorded, in words for the user; known at the end.
        run_id: MLflow's id of the run; empty as long as it is not known.
    """

    def __init__(self, config: Config) -> None:
        self.recorded, self.run_id = list[str](), ""
        self.fingerprint = ""
        self._entered = _now()
        self._tracking = tracking = config.tracking
        self._config = config
        self._journal: Journal | None = None
        self._claim: index.Claim | None = None
        self._answer: Answer | None = None
        self._system: SystemMetrics | None = None
        self._known: Summary | None = None
        self._output: int | None = None  # the open folder of the run's output
        self._writer: WriterProcess | None = None
        if tracking.enabled and not tracking.offline:
            self._writer = WriterProcess(store_uri(tracking))

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
        config = self._config
        self._take(output)
        if not self._tracking.enabled:
            return None
        wanted = self.fingerprint = fingerprint(config, dataset.digest, dataset.sizes)
        self._claim = index.Claim(wanted)
        if config.resume and not self._claim.take():
            print(f"resume: waits for {self._claim.holder()}, which trains the same run")
            while not self._claim.take(patience=3600):
                pass
        elif not config.resume:
            self._claim.take(patience=0)  # else another one trains it, too, as was asked for
        here = self._here() if config.resume else []
        if self._writer:
            asked = Question([self._tracking.experiment], wanted, config_fingerprint(config)) if config.resume else None
            self._writer.ask(asked or Question())
        if not config.resume:
            return None
        answer = self._wait() if self._writer else Answer(away="it is not asked")
        return _choose(here, answer, output)

    def keep(self, finished: PastRun) -> None:
        """Deliver a run that finished before, if that waits; `recorded` says what came of it."""
        folder = Path(finished.journal)
        if self._writer and finished.journal and not journal.summary(folder).delivered.complete:
            self._writer.deliver(folder)
            self._deliver(folder, END_SECONDS)

    def _take(self, output: Path) -> None:
        """Keep other runs out of a folder as long as this one is under way."""
        output.mkdir(parents=True, exist_ok=True)
        self._output = os.open(output, os.O_RDONLY)
        if not lock.hold(self._output):
            what = f"{output} is the output folder of another run that is under way; each needs one of its own"
            raise Refused(Problem("hydra.run.dir", what))

    @property
    def changed(self) -> str:
        """The id of a finished run of the same config, but with other code, data, versions or flags."""
        return self._wait().changed if self._writer else ""

    def _here(self) -> list[Summary]:
        """The runs of this fingerprint whose journals are here, the latest first."""
        assert self._claim
        store = store_name(store_uri(self._tracking))
        found = [journal.summary(folder) for folder in self._claim.journals()]
        return [each for each in found if each.is_in(store, [self._tracking.experiment])]

    def _wait(self) -> Answer:
        """The store's answer, which is waited for once.

        Raises:
            Refused: It will not take the run.
        """
        if self._answer is None and self._writer is not None:
            self._answer = self._writer.answer()
            if why := self._answer.refused:
                shown = store_name(store_uri(self._tracking))
                remedy = assign("tracking", "offline")
                raise Refused(Problem("tracking.uri", f"{shown} cannot be used ({why}); to record here", remedy))
            if why := self._answer.away:
                local = "; only runs recorded here are looked for" if self._config.resume else ""
                print(f"the store takes nothing now ({why}): the run is recorded here, and sent later{local}")
        return self._answer or Answer()

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
        if not self._tracking.enabled:
            return self
        self._wait()
        process = process_name(os.getpid())
        try:
            if before is not None:
                self._go_on(Path(before.journal), checkpoints, process)
            else:
                self._open(dataset, chosen, overrides, checkpoints.folder, process)
                checkpoints.keep_in(self.folder / CHECKPOINTS)
        except OSError as error:
            raise RunFailed(f"the run could not be recorded: {error.strerror or error}") from error
        if self._tracking.system_metrics:
            assert self._journal
            self._system = SystemMetrics(self._journal, self._known.steps if self._known else ())
        return self

    @property
    def folder(self) -> Path:
        """The folder of the run's journal."""
        assert self._journal
        return self._journal.folder

    def _open(
        self,
        dataset: "Dataset",
        chosen: Mapping[str, Any],
        overrides: Sequence[str],
        output: Path,
        process: str,
    ) -> None:
        config, tracking = self._config, self._tracking
        overrides = [redact(override) for override in overrides]
        recorded = record.recorded_config(config)
        identity = {
            "fingerprint": self.fingerprint,
            "fingerprint.config": config_fingerprint(config),
            "fingerprint.code": source_digest(config.trust),
            "flags": " ".join(environment_flags()),
            "output_folder": str(output.absolute()),
            "process": process,
        }
        own = self._journal = Journal.create(output)
        uuid = journal.new_uuid()
        index.add_waiting(uuid, own.folder)
        if self._claim:
            self._claim.add(own.folder)
        own.append(
            "opened",
            uuid=uuid,
            started=self._entered,
            store=store_name(store_uri(tracking)),
            experiment=tracking.experiment,
            name=redact(tracking.run_name or record.run_name(overrides)),
            parent=tracking.parent,
            tags={**record.tags_of(config, dataset, overrides), **identity},
            parameters=record.parameters_of(recorded, chosen),
            dataset=record.described(dataset),
        )
        if self._writer:
            self._writer.deliver(own.folder)
        own.add_file("config/config.yaml", OmegaConf.to_yaml(recorded))
        own.add_file("config/overrides.txt", "".join(f"{line}\n" for line in overrides))
        own.add_file("environment.txt", environment())
        if tracking.code and (tree := working_tree()) and tree.patch:
            own.add_file("code/uncommitted.patch", tree.patch)

    def _go_on(self, folder: Path, checkpoints: Checkpoints, process: str) -> None:
        journal.close_abandoned(folder, "FAILED", "it was interrupted without a word")
        known = self._known = journal.summary(folder)
        self._journal = Journal(folder)
        if self._claim:
            self._claim.add(folder)
        self._journal.append(
            "resumed", started=self._entered, earlier=known.seconds, process=process, number=known.resumed + 1
        )
        index.add_waiting(known.uuid, folder)  # after it: who has just delivered the rest takes it off the list
        if self._writer:
            self._writer.deliver(folder)
        for epoch, metrics in enumerate(checkpoints.state.by_epoch if checkpoints.state else ()):
            self.log_epoch(epoch, metrics)  # it may have died before it could record one

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a finished epoch (counted from 0) at that step."""
        self._log_metrics(metrics, epoch, sync=False)

    def _log_metrics(self, metrics: Mapping[str, float], step: int, *, sync: bool) -> None:
        if self._journal is None:
            return
        known = self._known.steps if self._known else ()  # of which every value that comes again is the same
        new = {name: float(value) for name, value in metrics.items() if (name, step) not in known}
        if new:
            self._journal.append("metrics", sync=sync, step=step, values=new)

    def log_results(
        self, metrics: Mapping[str, float], history: Mapping[str, Any], report: "Report", weights_digest: str
    ) -> None:
        """Record the measures of the finished model, and what ``report.json`` and the figures are made of."""
        if self._journal:
            self._log_metrics(metrics, len(history["loss"]) - 1, sync=False)
            self._journal.append("tags", sync=False, tags={"weights.digest": weights_digest})
            self._journal.write(REPORT_FILE, record.packed_report(self._config.task.name, history, report))
            self._journal.append("report", file=REPORT_FILE)

    def log_model(self, model: Any, example: Any, step: int) -> None:
        """Record the Keras model of after epoch `step` (counted from 0), with signature and an example of its input."""
        if self._journal and not (self._known and self._known.has_model):
            self._journal.write_by(KERAS_FILE, model.save)
            uuid = journal.new_uuid()
            self._journal.write(EXAMPLE_FILE, record.packed(example))
            self._journal.append("model", uuid=uuid, step=step, classes=model.output_shape[-1], example=EXAMPLE_FILE)

    def close(self) -> None:
        """Let go of what was not started."""
        if self._writer:
            self._writer.close()
        if self._claim:
            self._claim.release()
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
        if self._journal:
            self._end(self._journal, status, text, quietly=error is not None)
        if interrupt and interrupt is not error:
            raise interrupt

    def _end(self, own: Journal, status: str, trace: str, *, quietly: bool) -> None:
        """Close the journal, and wait for its delivery for a while; after an error, what fails here is not told."""
        try:
            own.append("closed", status=status, failure=_failure(trace), trace=trace)
        except RunFailed:
            if not quietly:
                raise
        finally:
            own.close()
        self._deliver(own.folder, PATIENCE.get(status, END_SECONDS))

    def _deliver(self, folder: Path, patience: float) -> None:
        why = self._writer.finish(patience=patience) if self._writer else ""
        found = journal.summary(folder).delivered
        if found.complete:
            self.run_id = found.run_id
            self.recorded = [record.RECORDED.format(found.run_id)]
        else:
            not_sent = f", but not sent ({why})" if self._writer else ""
            self.recorded = [f"recorded in {folder}{not_sent}"]
            if self._writer or not self._tracking.parent:  # else the sweep says so
                self.recorded.append("send it:  python -m experiments.sync")
        if found.rejected:
            self.recorded.append(record.rejections(found.rejected))


def _now() -> int:
    """In milliseconds since 1970."""
    return int(time.time() * 1000)


def _failure(trace: str) -> str:
    """The last line of a traceback, without the name of our own exception."""
    last = trace.strip().splitlines()[-1] if trace.strip() else ""
    return last.removeprefix(f"{RunFailed.__module__}.{RunFailed.__qualname__}: ")[:500]


def _choose(here: Sequence[Summary], answer: Answer, output: Path) -> PastRun | None:
    """The run to keep, or to go on with: one that a retry of a sweep left, one that finished, one that was interrupted.

    Args:
        here: Runs with a journal here, the latest first.
        answer: What the store said.
        output: Folder of the run's output.
    """
    here = [run for run in here if not is_gone(run, answer)]
    left = [run for run in here if run.status != "FINISHED" and _can_go_on(run)]
    own = [run for run in left if run.output.absolute() == output.absolute()]
    if own:
        return as_past_run(own[0])
    finished = [run for run in (*answer.runs, *map(as_past_run, here)) if run.status == "FINISHED"]
    finished = [run for run in finished if run.objective is not None]
    return finished[0] if finished else as_past_run(left[0]) if left else None


def is_gone(run: Summary, answer: Answer) -> bool:
    """Whether a run with a journal here does not count: it was deleted in the store, or the store is another one now.

    An interrupted run that the store lacks counts: all of it is delivered when it goes on.
    """
    state = run.delivered
    if state.gone or answer.away or not state.run_id:
        return state.gone
    stored = {each.run_id: each.status for each in answer.runs}
    if run.status == "FINISHED" and state.complete:
        return stored.get(state.run_id, DELETED) == DELETED
    return stored.get(state.run_id) == DELETED


def _can_go_on(run: Summary) -> bool:
    """Whether an interrupted run has a checkpoint, or was not measured yet."""
    if not run.opened.get("dataset"):  # its process died before it had described itself
        return False
    measured = any(not name.startswith("system/") for name, _ in run.steps)
    return not measured or any(run.folder.glob(f"{CHECKPOINTS}/*.npz"))


def as_past_run(run: Summary) -> PastRun:
    """A run with a journal here."""
    return PastRun(
        run.delivered.run_id,
        run.status,
        run.objective,
        run.seconds,
        run.tags,
        str(run.opened.get("parameters", {}).get("runtime.threads", "")),
        str(run.folder),
        run.uuid,
    )


def _interrupt(error: BaseException | None) -> BaseException | None:
    """The interrupt behind an error: zipfile, for one, makes it a ValueError on its way."""
    behind = error
    while isinstance(behind, Exception):
        behind = behind.__context__
    return behind if behind is error or isinstance(behind, KeyboardInterrupt) else None
