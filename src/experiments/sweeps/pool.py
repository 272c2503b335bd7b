"""Runs jobs side by side, each in a process of its own, forked from one that has imported TensorFlow."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from ctypes.util import find_library
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus

from experiments.config import Refused, RunFailed
from experiments.config.checks import find_problems
from experiments.config.fingerprint import config_fingerprint
from experiments.config.schema import Pooled
from experiments.sweeps import server
from experiments.sweeps.jobs import Job, identify, prepare
from experiments.sweeps.results import LOG
from experiments.sweeps.view import SweepView
from experiments.sweeps.worker import work
from experiments.system.resources import available_cores
from experiments.system.terminal import Console
from experiments.tracking import record
from experiments.tracking.index import Claim
from experiments.tracking.store import redact
from experiments.tracking.sweep_recorder import SweepRecorder

if TYPE_CHECKING:
    from hydra_plugins.experiments_sweeps import PoolLauncher

# How long an interrupted run may take to end its record, in seconds, before it is killed.
GRACE = 20.0
# Between two looks at whether jobs that another process trains are free, in seconds.
CLAIMED_SECONDS = 0.5


def refuse_wrong_settings(launcher: "PoolLauncher") -> None:
    """Check what ``hydra.launcher`` says.

    Raises:
        Refused: With all problems.
    """
    found, defaults = (
        {"hydra": {"launcher": dict(zip(("workers", "retries", "max_failures"), values, strict=True))}}
        for values in ((launcher.workers, launcher.retries, launcher.max_failures), ("auto", 0, None))
    )
    if problems := find_problems(found, Pooled, defaults):
        raise Refused(problems)


def launch(launcher: "PoolLauncher", job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Carry out the jobs of any of Hydra's sweepers."""
    jobs = prepare(job_overrides, launcher.hydra_context.config_loader, launcher.sweep_config, first=first)
    server.start(jobs)
    server.refuse_unusable()
    with closing(SweepRecorder(jobs[0].config.tracking, writes=False)) as recorder:  # it has no parent run
        return run(identify(jobs), launcher, recorder, Console())


def run(
    jobs: Sequence[Job], launcher: "PoolLauncher", recorder: SweepRecorder, console: Console, kept: int = 0
) -> list[JobReturn]:
    """Carry out jobs, as many at a time as there are workers.

    Args:
        jobs: What to run.
        launcher: Says with how many workers, and what to do about failures.
        recorder: Of the sweep; it ends the records of workers that die.
        console: Where progress is shown.
        kept: Jobs of the sweep that need not run.

    Returns:
        The objective of each job, or why there is none.
    """
    gpus, workers = visible_gpus(), worker_count(launcher)
    pool = _Pool(launcher, recorder, workers, gpus, deque(jobs))
    if not jobs:
        return []
    with SweepView(console, jobs, kept, workers) as view:
        try:
            pool.carry_out(view)
        except BaseException:
            pool.stop()
            raise
    return [pool.returned(job) for job in jobs]


def worker_count(launcher: "PoolLauncher") -> int:
    """Number of runs at a time: as the launcher says, else one for each GPU or core."""
    return launcher.workers if isinstance(launcher.workers, int) else len(visible_gpus()) or available_cores()


def threads_each(launcher: "PoolLauncher") -> int:
    """Number of processor threads of a run."""
    return max(available_cores() // worker_count(launcher), 1)


def visible_gpus() -> list[str]:
    """List the GPUs that TensorFlow can use in this process, as CUDA names them. TensorFlow is not imported."""
    gpus = _listed_gpus()
    return gpus if gpus and _has_cuda() else []


def _has_cuda() -> bool:
    """Whether TensorFlow finds CUDA: in NVIDIA's packages beside it, or in the system. Without, it uses no GPU."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations or () if spec else ()
    return any(Path(folder, "cuda_runtime").is_dir() for folder in folders) or find_library("cudart") is not None


def _listed_gpus() -> list[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        command = ["nvidia-smi", "--list-gpus"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):  # there is no driver, or no GPU
        return []
    return [str(number) for number, _ in enumerate(re.findall(r"^GPU \d+:", listed, re.MULTILINE))]


@dataclass
class _Worker:
    """A process at work on a job. `outcome` is what it says at its end; nothing if it dies without a word."""

    job: Job
    process: ForkServerProcess
    connection: Connection
    slot: int
    started: float
    outcome: tuple[str, Any] | None = None


class _Pool:
    def __init__(
        self, launcher: "PoolLauncher", recorder: SweepRecorder, workers: int, gpus: Sequence[str], pending: deque[Job]
    ) -> None:
        self._launcher, self._recorder, self._gpus, self._pending = launcher, recorder, gpus, pending
        self._slots = set(range(workers))
        self._threads = threads_each(launcher)
        self._running: list[_Worker] = []
        self._outcomes: dict[int, tuple[str, Any]] = {}
        self._failures: dict[int, int] = {}
        self._told = False  # what is waited for
        function = launcher.task_function
        module = sys.modules[function.__module__]
        name = module.__spec__.name if module.__name__ == "__main__" and module.__spec__ else module.__name__
        self._task = f"{name}:{getattr(function, '__name__', '')}"

    def carry_out(self, view: SweepView) -> None:
        """Keep all workers busy until nothing is left."""
        while self._pending or self._running:
            while self._slots and (job := self._next()):
                self._start(job, view)
            watched = [each for worker in self._running for each in (worker.connection, worker.process.sentinel)]
            ready = wait(watched, CLAIMED_SECONDS if self._pending and self._slots else None)
            for worker in list(self._running):
                if worker.connection in ready:
                    self._listen(worker, view)
                if worker.process.sentinel in ready:
                    while worker.connection.poll():
                        if not self._listen(worker, view):
                            break
                    self._ended(worker, view)

    def _next(self) -> Job | None:
        """The next job; where the sweep is resumed, none that another process trains: it may finish, and be kept."""
        for job in list(self._pending):
            claim = Claim(job.fingerprint)
            if not job.config.resume or not job.config.tracking.enabled or claim.is_free():
                self._pending.remove(job)
                return job
        if self._pending and not self._running and not self._told:
            self._told = True
            print(f"resume: waits for {Claim(self._pending[0].fingerprint).holder()}, which trains the same run")
        return None

    def _start(self, job: Job, view: SweepView) -> None:
        slot = min(self._slots)
        self._slots.remove(slot)
        ours, theirs = multiprocessing.Pipe()
        settings = {
            "parent": self._recorder.parent,
            "threads": self._threads,
            "gpu": self._gpus[slot % len(self._gpus)] if self._gpus else None,
        }
        context = self._launcher.hydra_context
        process = server.forked(work, (theirs, self._task, job, context, settings))
        theirs.close()
        self._running.append(_Worker(job, process, ours, slot, time.monotonic()))
        view.started(job)

    def _listen(self, worker: _Worker, view: SweepView) -> bool:
        """Take one piece of news; say whether there can be more."""
        try:
            kind, *news = worker.connection.recv()
        except (EOFError, OSError):
            return False
        if kind == "epoch":
            view.epoch(worker.job, *news)
        else:
            worker.outcome = (kind, news[0])
        return True

    def _ended(self, worker: _Worker, view: SweepView) -> None:
        kind, value = worker.outcome or ("failed", _cause_of_death(worker.process.exitcode))
        child = self._settle(worker, "FAILED", value) if kind == "failed" else None
        if child and child.status == "FINISHED" and child.objective is not None and worker.outcome is None:
            kind, value = "done", child.objective  # it died after it had ended its record
        seconds = time.monotonic() - worker.started
        self._forget(worker)
        self._outcomes[worker.job.number] = kind, value
        if kind == "done":
            view.finished(worker.job, float(value), seconds)
            return
        failures = self._failures[worker.job.number] = self._failures.get(worker.job.number, 0) + 1
        again = failures <= self._launcher.retries
        view.failed(worker.job, value, worker.job.folder / LOG, again)
        if again:
            self._pending.appendleft(replace(worker.job, begun=True))
        limit = self._launcher.max_failures
        lost = sum(count > self._launcher.retries for count in self._failures.values())
        if limit is not None and lost >= limit and self._pending:
            view.gave_up(len(self._pending), limit)
            self._pending.clear()

    def _settle(self, worker: _Worker, status: str, reason: str) -> Any:
        job = worker.job
        tags = {
            "fingerprint": job.fingerprint,
            "fingerprint.config": config_fingerprint(job.config),
            "overrides": " ".join(job.overrides),
            "objective": job.objective.metric,
            "objective.mode": job.objective.mode,
            "measured_as": job.objective.measured_as,
            "dataset": job.config.data.name,
            "dataset.digest": job.digest,
        }
        opened = {
            "name": job.name or "run",
            "experiment": job.config.tracking.experiment,
            "parameters": record.parameters_of(record.recorded_config(job.config), job.config.runtime.model_dump()),
            "tags": {key: redact(value) for key, value in tags.items() if value},
        }
        return self._recorder.settle(worker.process.pid or 0, opened, job.folder, status, reason)

    def _forget(self, worker: _Worker) -> None:
        self._running.remove(worker)
        self._slots.add(worker.slot)
        worker.connection.close()
        worker.process.join()
        worker.process.close()

    def stop(self) -> None:
        """End all workers: their runs as KILLED, within seconds, whatever they are doing."""
        # A second signal does not make it faster: it would leave workers behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        for worker in self._running:
            worker.process.terminate()
        patience = time.monotonic() + GRACE
        for worker in self._running:
            worker.process.join(max(patience - time.monotonic(), 0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        for worker in list(self._running):
            self._settle(worker, "KILLED", "interrupted")
            self._forget(worker)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def returned(self, job: Job) -> JobReturn:
        """What Hydra hands to the sweeper."""
        kind, value = self._outcomes.get(job.number, ("failed", "was not started, as too many runs failed"))
        made = JobReturn(job.overrides, status=JobStatus.COMPLETED if kind == "done" else JobStatus.FAILED)
        made.return_value = value if kind == "done" else RunFailed(f"{job.name}: {value}")
        return made


def _cause_of_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-exitcode, f"signal {-exitcode}")  # most real-time signals have no name
        hint = ": by hand, or because memory ran out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit status {exitcode}, without a word"
