"""The training process's side of the record: hands everything to a process of its own, and waits only at the end.

MLflow takes seconds to import, a store may be slow, and a killed process cannot say that it was killed. So the record
is kept by a second process. It imports MLflow while this one imports TensorFlow, and when this one dies without a
word, it says so in the run.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any

from experiments.config import Config, RunFailed
from experiments.config.schema import Tracking
from experiments.tracking.store import redact, store_uri

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.evaluation import Report


class Recorder:
    """Records one run. Does nothing with ``tracking=off``.

    As a context manager it ends the run as FINISHED, as FAILED with the traceback as an artifact, or as KILLED.

    Attributes:
        run_id: MLflow's id of the run, known at the end.
    """

    def __init__(self, config: Tracking) -> None:
        self.run_id = ""
        self._connection: Connection | None = None
        if config.enabled:
            self._connection, other_end = multiprocessing.Pipe()
            if "mlflow" in sys.modules:  # nothing to wait for: a thread does
                threading.Thread(target=_serve, args=(other_end, store_uri(config)), daemon=True).start()
            else:
                context = multiprocessing.get_context("spawn")
                context.Process(target=_serve, args=(other_end, store_uri(config), True), daemon=True).start()
                other_end.close()

    def start(
        self, config: Config, dataset: "Dataset", chosen: Mapping[str, Any], overrides: Sequence[str]
    ) -> "Recorder":
        """Open the run. For use in a ``with`` statement."""
        sizes = {"train": len(dataset.train), "validation": len(dataset.validation or ()), "test": len(dataset.test)}
        described = {
            "name": dataset.name,
            "digest": dataset.digest,
            "source": dataset.source,
            "profile": sizes | {"classes": dataset.classes, "input_shape": dataset.input_shape},
        }
        self._send("start", config, described, chosen, [redact(override) for override in overrides])
        return self

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a finished epoch (counted from 0) at that step."""
        self._raise_failure()
        self._send("log_metrics", dict(metrics), epoch)

    def log_results(self, metrics: Mapping[str, float], history: Mapping[str, Any], report: "Report") -> None:
        """Record the measures of the finished model, ``report.json`` and the figures."""
        self._send("log_metrics", dict(metrics), len(history["loss"]) - 1)
        self._send("log_report", dict(history), report)

    def log_model(self, model: Any, example: Any, step: int) -> None:
        """Record the Keras model of after epoch `step` (counted from 0), with signature and an example of its input."""
        if self._connection is None:
            return
        handle, file = tempfile.mkstemp(suffix=".keras")
        os.close(handle)
        model.save(file)
        self._send("log_model", file, example, model.output_shape[-1], step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is None:
            return
        failure = Failure()
        text = redact("".join(traceback.format_exception(kind, error, trace))) if isinstance(error, Exception) else ""
        status = "FINISHED" if error is None else "FAILED" if text else "KILLED"
        try:
            self._send("end", status, text)
            while isinstance(reply := self._receive(), Failure):
                failure = failure or reply
        except RunFailed as gone:
            failure = failure or Failure(gone)
        else:
            self.run_id = reply
        if failure and error is None:
            raise RunFailed(failure)

    def _send(self, method: str, *arguments: Any) -> None:
        if self._connection is not None:
            try:
                self._connection.send((method, arguments))
            except OSError:
                self._receive()  # its last words, if any

    def _receive(self) -> str:
        assert self._connection is not None
        try:
            reply: str = self._connection.recv()
            return reply
        except (EOFError, OSError) as error:
            raise RunFailed("the run could not be recorded: the recording process is gone") from error

    def _raise_failure(self) -> None:
        if self._connection is not None and self._connection.poll():
            raise RunFailed(self._receive())


class Failure(str):
    """What went wrong in the recording process."""


def _serve(connection: Connection, uri: str, own_process: bool = False) -> None:
    """Carry out what arrives, in order, until the run has ended or the other side is gone."""
    if own_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; only the trainer decides what it means
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from experiments.tracking.record import Record

    method = ""
    try:
        record = Record(uri, own_process)
    except Exception as error:
        _answer(connection, _failure(error))
        return
    while method != "end":
        try:
            method, arguments = connection.recv()
        except EOFError:
            method, arguments = (
                "end",
                ("FAILED", "The training process died without a word: killed, or out of memory.\n"),
            )
        try:
            getattr(record, method)(*arguments)
        except Exception as error:  # it belongs to the run, which the other side may still end properly
            _answer(connection, _failure(error))
    _answer(connection, record.run_id)


def _failure(error: Exception) -> Failure:
    reason = " ".join(str(error).partition("\n[SQL")[0].split())[:400] or type(error).__name__
    return Failure(f"the run could not be recorded: {redact(reason)}")


def _answer(connection: Connection, answer: Any) -> None:
    with contextlib.suppress(OSError):  # the other side is gone: nobody is left to tell
        connection.send(answer)
