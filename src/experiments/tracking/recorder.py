"""The training process's side of the record: hands everything to a process of its own, and waits only at the end.

MLflow takes seconds to import, a store may be slow, and a killed process cannot say that it was killed. So the record
is kept by a second process. It imports MLflow while this one imports TensorFlow, and when this one dies without a
word, it says so in the run.
"""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from experiments.checkpoints import Checkpoints
from experiments.config import Config, Problem, Refused, RunFailed
from experiments.config.fingerprint import config_fingerprint, fingerprint, source_digest
from experiments.config.schema import Tracking
from experiments.tracking.store import redact, store_uri

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.evaluation import Report
    from experiments.tracking.record import Before


class RecordingProcess:
    """The other side of a record: calls of its methods go there through a pipe, and are carried out in order.

    It imports MLflow at once, and touches the store when it is first told something.

    Args:
        uri: The store.
        record: The class, by module and name, whose methods are called; only the other side imports it.
    """

    def __init__(self, uri: str, record: str) -> None:
        self._connection, other_end = multiprocessing.Pipe()
        atexit.register(self._connection.close)  # or Python, before it leaves, waits for the process that waits for us
        if "mlflow" in sys.modules:  # nothing to wait for: a thread does
            threading.Thread(target=_serve, args=(other_end, uri, record), daemon=True).start()
        else:
            context = multiprocessing.get_context("spawn")
            if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
                multiprocessing.set_start_method("spawn", force=True)  # joblib's own cannot be handed down
            with without_main():
                context.Process(target=_serve, args=(other_end, uri, record, True), daemon=True).start()
            other_end.close()

    def send(self, method: str, *arguments: Any) -> None:
        """Have a method called. What goes wrong there is known at the next `receive`."""
        try:
            self._connection.send((method, arguments))
        except OSError:
            self.receive()  # its last words, if any

    def receive(self) -> Any:
        """Wait for what a method returned, or for the failure of one."""
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise RunFailed("the run could not be recorded: the recording process is gone") from error

    def call(self, method: str, *arguments: Any) -> Any:
        """Have a method called and return what it returns.

        Raises:
            RunFailed: It, or one before it, failed.
        """
        self.send(method, *arguments)
        if isinstance(reply := self.receive(), Failure):
            raise RunFailed(reply)
        return reply

    def raise_failure(self) -> None:
        """Raise what has gone wrong so far, if anything has."""
        if self._connection.poll():
            raise RunFailed(self.receive())


class Recorder:
    """Records one run. Does nothing with ``tracking=off``.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.

    Attributes:
        run_id: MLflow's id of the run, known at the end.
    """

    def __init__(self, config: Tracking) -> None:
        self.run_id = ""
        self._process = RecordingProcess(store_uri(config), "record.Record") if config.enabled else None

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
        before: Before | None = self._process.call("find_before", config, fingerprint(config, dataset.digest)) or None
        if before and before.under_way:
            what = f"the run {before.run_id} of this config is under way; wait for it, or start another"
            raise Refused(Problem("resume", what, "resume=false"))
        return before

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
            "fingerprint": fingerprint(config, dataset.digest),
            "fingerprint.config": config_fingerprint(config),
            "fingerprint.code": source_digest(tuple(config.trust)),
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

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        failure = Failure()
        text = redact("".join(traceback.format_exception(kind, error, trace))) if isinstance(error, Exception) else ""
        status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        try:
            self._process.send("end", status, text)
            while isinstance(reply := self._process.receive(), Failure):
                failure = failure or reply
        except RunFailed as gone:
            failure = failure or Failure(gone)
        else:
            self.run_id = reply
        if failure and error is None:
            raise RunFailed(failure)


def _described(dataset: "Dataset") -> dict[str, Any]:
    parts = {"train": dataset.train, "validation": dataset.validation or (), "test": dataset.test}
    sizes = {name: len(part) for name, part in parts.items()}
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "source": dataset.source,
        "profile": sizes | {"classes": dataset.classes, "input_shape": dataset.input_shape},
    }


class Failure(str):
    """What went wrong in the recording process."""


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Start processes that do not import the program's main module: it is not needed there, and may have changed."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def stop_idle() -> None:
    """End the recording processes that were told nothing: their imports need not end first."""
    for process in multiprocessing.active_children():
        process.terminate()  # the others ignore it


def process_name(pid: int) -> str:
    """A process's number and when it started, by which it can be told from a later one with the same number."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"


def _serve(connection: Connection, uri: str, record_class: str, own_process: bool = False) -> None:
    """Carry out what arrives, in order, until the record has ended or the other side is gone."""
    if own_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; only the trainer decides what it means
    module, _, name = record_class.partition(".")
    method = ""
    try:
        record = getattr(importlib.import_module(f"experiments.tracking.{module}"), name)(uri, own_process)
    except Exception as error:
        _answer(connection, _failure(error))
        return
    while method not in ("end", "abandon"):
        try:
            method, arguments = connection.recv()
        except EOFError:  # the other side died without a word
            method, arguments = "abandon", ()
        if own_process:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until now there was nothing to lose: `stop_idle`
        try:
            reply = getattr(record, method)(*arguments)
        except Exception as error:  # it belongs to the run, which the other side may still end properly
            reply = _failure(error)
        if reply is not None:
            _answer(connection, reply)


def _failure(error: Exception) -> Failure:
    reason = " ".join(str(error).partition("\n[SQL")[0].split())[:400] or type(error).__name__
    return Failure(f"the run could not be recorded: {redact(reason)}")


def _answer(connection: Connection, answer: Any) -> None:
    with contextlib.suppress(OSError):  # the other side is gone: nobody is left to tell
        connection.send(answer)
