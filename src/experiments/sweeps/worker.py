"""A worker process: one run, its output in a file of its own, its progress sent to the launcher."""

import importlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, TextIO

from hydra import version
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import open_dict

from experiments import data
from experiments.config import Refused, RunFailed
from experiments.engine import listener
from experiments.engine.listener import Listener
from experiments.sweeps.jobs import Job, Outcome
from experiments.sweeps.results import LOG, error_of
from experiments.tracking.store import redact


def work(connection: Connection, task: str, job: Job, context: HydraContext, settings: Mapping[str, Any]) -> NoReturn:
    """Carry out a job, and send the launcher, which is at the other end of `connection`, how it goes.

    Args:
        connection: Takes (number, of, metrics) of each epoch, and at the end the `Outcome`. Gives the answers.
        task: The function to run, as ``module:name``.
        job: What it is given.
        context: Hydra's.
        settings: ``parent``, the run that this one is nested beneath; ``threads``; ``gpu``, or None.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    redirect_output(job)
    if settings["gpu"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings["gpu"]
    answers = SimpleQueue[bool]()
    threading.Thread(target=_receive_answers, args=(connection, answers), daemon=True).start()

    def told(*epoch: Any) -> bool:
        _send(connection, epoch)
        return answers.get() if job.asks else False

    try:
        _send(connection, carry_out(task, job, context, settings, told))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # taking TensorFlow apart takes a second


# Called with each epoch's number, the number of all, and the metrics; returns whether training is to stop.
Told = Callable[[int, int, Mapping[str, float]], bool]


class _Follower(Listener):
    """Hands epochs to the launcher, and keeps what was measured."""

    def __init__(self, told: Told) -> None:
        self._told, self.measures, self.pruned = told, dict[str, float](), 0

    def epoch(self, number: int, of: int, metrics: Mapping[str, float]) -> bool:
        return self._told(number, of, metrics)

    def measured(self, measures: Mapping[str, float], pruned: int) -> None:
        self.measures, self.pruned = dict(measures), pruned


def carry_out(
    task: str,
    job: Job,
    context: HydraContext,
    settings: Mapping[str, Any],
    told: Told = lambda *epoch: False,
) -> Outcome:
    """Run a job in this process.

    Args:
        task: The function to run, as ``module:name``.
        job: What it is given.
        context: Hydra's.
        settings: ``parent``, the run that this one is nested beneath, and ``threads``.
        told: Hears of each epoch, see `Told`; if `Job.asks`, it waits for the answer.
    """
    setup_globals()
    listener.current = follower = _Follower(told)
    try:
        data.expect(job.config.data, job.config.task.name, job.digest)
        version.setbase("1.3")
        config = _composed(job, settings)
        module, _, name = task.partition(":")
        function = getattr(importlib.import_module(module), name)
        if trouble := getattr(sys.modules.get("experiments.sweeps.preload"), "trouble", None):
            raise trouble
        outcome = run_job(function, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
        if outcome.status == JobStatus.COMPLETED:
            return Outcome(float(outcome.return_value), "", follower.measures, follower.pruned)
        error = error_of(outcome)
    except Exception as raised:
        error = raised
    if isinstance(error, Refused | RunFailed):
        print(redact(str(error)), file=sys.stderr)
        return Outcome(reason=error.reason if isinstance(error, Refused) else str(error))
    print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    return Outcome(reason=traceback.format_exception_only(error)[-1].strip())


def _composed(job: Job, settings: Mapping[str, Any]) -> Any:
    """The config of a job, with what it is to know of the sweep."""
    config = pickle.loads(job.composed)  # noqa: S301 - the launcher composed it
    with open_dict(config):
        looks = config.resume and job.reuses and not job.tags  # of a trial, all that was recorded is known
        config.resume = looks or (job.begun and config.tracking.enabled)  # begun: tried again
        if settings["parent"]:
            config.tracking.offline = True  # the launcher has its journal delivered
            config.tracking.parent = settings["parent"]
            config.tracking.run_name = config.tracking.run_name or job.name or None
        if job.tags and config.tracking.enabled:
            config.tracking.tags = {**config.tracking.tags, **job.tags}
        if config.runtime.threads == "auto":
            config.runtime.threads = settings["threads"]
    return config


def redirect_output(job: Job) -> None:
    """Send this process's output to the job's log file; what C++ code writes, too."""
    job.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(job.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # The launcher's may be closed, or in another encoding. Lines are written at once, as `os._exit` flushes nothing.
    sys.stdout, sys.stderr = _stream(1), _stream(2)


def _stream(descriptor: int) -> TextIO:
    return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _receive_answers(connection: Connection, answers: SimpleQueue[bool]) -> None:
    """Take the launcher's answers until it is gone; then end the run as interrupted."""
    with suppress(EOFError, OSError):
        while True:
            answers.put(connection.recv())
    os.kill(os.getpid(), signal.SIGTERM)


def _send(connection: Connection, news: Any) -> None:
    with suppress(OSError):  # the launcher is gone: `_receive_answers` notices
        connection.send(news)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the record is being ended
    raise KeyboardInterrupt
