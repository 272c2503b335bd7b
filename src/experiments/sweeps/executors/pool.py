"""Runs jobs side by side, each in a process of its own, forked from one that has imported TensorFlow."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING, Any

from experiments.config.schema import Auto, Count
from experiments.sweeps import executors, server
from experiments.sweeps.executors import Ended, Epoch
from experiments.sweeps.jobs import Job, Outcome
from experiments.sweeps.worker import work
from experiments.system.resources import available_cores, visible_gpus

if TYPE_CHECKING:
    from hydra_plugins.experiments_sweeps import ExecutorLauncher

# How long an interrupted run may take to end its record, in seconds, before it is killed.
GRACE = 20.0


class Settings(executors.Settings):
    """Keys of ``hydra.launcher``; ``conf/hydra/launcher/pool.yaml`` says what they mean."""

    workers: Count | Auto = "auto"


def executor(settings: Settings, launcher: "ExecutorLauncher") -> "Pool":
    """The pool of a launcher."""
    return Pool(settings.workers, task_of(launcher), launcher.hydra_context)


def task_of(launcher: "ExecutorLauncher") -> str:
    """The function that jobs call, as ``module:name``."""
    function = launcher.task_function
    module = sys.modules[function.__module__]
    name = module.__spec__.name if module.__name__ == "__main__" and module.__spec__ else module.__name__
    return f"{name}:{getattr(function, '__name__', '')}"


@dataclass
class _Worker:
    """A process at work on a job. `outcome` is what it reports at its end; None if it is killed before."""

    job: Job
    process: ForkServerProcess
    connection: Connection
    slot: int
    started: float
    outcome: Outcome | None = None


class Pool:
    """An executor.

    Args:
        workers: Number of runs at a time; auto: one for each GPU, else for each core.
        task: The function that they call, as ``module:name``.
        context: Hydra's.
    """

    def __init__(self, workers: int | str, task: str, context: Any) -> None:
        self._gpus = visible_gpus()
        self.size = workers if isinstance(workers, int) else len(self._gpus) or available_cores()
        self.threads = max(available_cores() // self.size, 1)
        self._task, self._context = task, context
        self._slots = set(range(self.size))
        self._running: list[_Worker] = []

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Start the process that workers are forked from."""
        server.start(jobs)

    def wait_until_ready(self) -> None:
        """Wait until that process has imported Keras."""
        server.refuse_unusable()

    def has_room(self) -> bool:
        """Whether fewer runs are under way than there are workers."""
        return bool(self._slots)

    def start(self, job: Job, parent: str) -> None:
        """Fork a worker for a job."""
        slot = min(self._slots)
        self._slots.remove(slot)
        ours, theirs = multiprocessing.Pipe()
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        settings = {"parent": parent, "threads": self.threads, "gpu": gpu}
        process = server.forked(work, (theirs, self._task, job, self._context, settings))
        theirs.close()
        self._running.append(_Worker(job, process, ours, slot, time.monotonic()))

    def news(self, seconds: float | None) -> list[Epoch | Ended]:
        """Wait for epochs, and for workers that end."""
        news: list[Epoch | Ended] = []
        watched = [each for worker in self._running for each in (worker.connection, worker.process.sentinel)]
        ready = wait(watched, seconds)
        for worker in list(self._running):
            if worker.connection in ready:
                self._receive(worker, news)
            if worker.process.sentinel in ready:
                while worker.connection.poll() and self._receive(worker, news):
                    pass
                news.append(self._ended(worker))
        return news

    def _receive(self, worker: _Worker, news: list[Epoch | Ended]) -> bool:
        """Take one message of a worker; return whether there can be more."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return False
        if isinstance(message, Outcome):
            worker.outcome = message
        else:
            news.append(Epoch(worker.job, *message))
        return True

    def _ended(self, worker: _Worker) -> Ended:
        """Forget a worker whose process has ended."""
        outcome = worker.outcome or Outcome(reason=cause_of_death(worker.process.exitcode))
        seconds, process = time.monotonic() - worker.started, worker.process.pid or 0
        self._running.remove(worker)
        self._slots.add(worker.slot)
        worker.connection.close()
        worker.process.join()
        worker.process.close()
        return Ended(worker.job, seconds, process, outcome, reported=worker.outcome is not None)

    def answer(self, job: Job, stop: bool) -> None:
        """Send a worker the answer that it waits for."""
        for worker in self._running:
            if worker.job is job:
                with suppress(OSError):  # it was killed
                    worker.connection.send(stop)

    def stop(self) -> list[Ended]:
        """End all workers: with SIGTERM, which ends their runs as KILLED, then with SIGKILL."""
        for worker in self._running:
            worker.process.terminate()
        patience = time.monotonic() + GRACE
        for worker in self._running:
            worker.process.join(max(patience - time.monotonic(), 0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        return [self._ended(worker) for worker in list(self._running)]

    def close(self) -> None:
        """End the process that workers are forked from."""
        server.stop()


def cause_of_death(exitcode: int | None) -> str:
    """Say in words how a process ended that did not report it."""
    if exitcode is not None and exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-exitcode, f"signal {-exitcode}")  # most real-time signals have no name
        hint = ": by hand, or because memory ran out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit status {exitcode}, and no message"
