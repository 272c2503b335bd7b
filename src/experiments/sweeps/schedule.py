"""Carries out what a proposer proposes on an executor: a free place gets the next job at once."""

import signal
from collections import deque
from dataclasses import replace

from hydra.core.utils import JobReturn, JobStatus

from experiments.config import RunFailed
from experiments.config.fingerprint import config_fingerprint
from experiments.data import Outlines
from experiments.sweeps import executors
from experiments.sweeps.executors import Ended, Epoch, Executor
from experiments.sweeps.jobs import Job, Outcome, identify
from experiments.sweeps.kept import Kept
from experiments.sweeps.proposers import Proposer
from experiments.sweeps.results import LOG
from experiments.sweeps.view import SweepView
from experiments.tracking import record
from experiments.tracking.index import Claim
from experiments.tracking.store import redact
from experiments.tracking.summary import PastRun
from experiments.tracking.sweep_recorder import SweepRecorder

# Seconds between two checks whether another process has ended a run that is waited for.
CLAIMED_SECONDS = 0.5


class Schedule:
    """The jobs of a sweep, while they are carried out.

    Args:
        proposer: Proposer of the jobs.
        executor: Executor that runs the jobs.
        recorder: Of the sweep; it ends the records of runs whose processes were killed.
        kept: Recorded runs of the jobs that need not run again.
        settings: What to do about failures.

    Attributes:
        jobs: Those that were proposed, in their order.
    """

    def __init__(
        self,
        proposer: Proposer,
        executor: Executor,
        recorder: SweepRecorder,
        kept: Kept,
        settings: executors.Settings,
    ) -> None:
        self.jobs = list[Job]()
        self._proposer, self._executor, self._recorder, self._kept = proposer, executor, recorder, kept
        self._retries, self._max_failures = settings.retries, settings.max_failures
        self._waiting = deque[Job]()  # those to try again, and those that another process trains
        self._running = set[int]()
        self._failures = dict[int, int]()
        self._outcomes = dict[int, Outcome]()
        self._outlines = Outlines()
        self._gave_up = self._said_who = False

    def carry_out(self, view: SweepView) -> None:
        """Keep the executor busy until there is nothing left to do, or stop it in order."""
        try:
            while True:
                while self._executor.has_room() and (job := self._next(view)):
                    self._executor.start(job, self._recorder.parent)
                    self._running.add(job.number)
                    view.started(job)
                if not self._running and not self._waiting:
                    return
                watches = self._waiting and self._executor.has_room()
                for news in self._executor.news(CLAIMED_SECONDS if watches else None):
                    if isinstance(news, Epoch):
                        self._trained(news, view)
                    else:
                        self._ended(news, view)
        except BaseException:
            self._stop()
            raise

    def _trained(self, epoch: Epoch, view: SweepView) -> None:
        view.epoch(epoch.job, epoch.number, epoch.of, epoch.metrics)
        stop = self._proposer.epoch(epoch.job, epoch.number, epoch.metrics)
        if epoch.job.asks:
            self._executor.answer(epoch.job, stop)

    def _next(self, view: SweepView) -> Job | None:
        """The next job to start. A resumed sweep leaves out what another process trains, as its result can be kept."""
        for waiting in list(self._waiting):
            if _is_free(waiting):
                self._waiting.remove(waiting)
                return waiting
        while self._may_propose() and (job := self._proposed(view)):
            if _is_free(job):
                return job
            self._waiting.append(job)
        if self._waiting and not self._running and not self._said_who:
            self._said_who = True
            print(f"resume: waits for {Claim(self._waiting[0].fingerprint).holder()}, which trains the same run")
        return None

    def _may_propose(self) -> bool:
        """Whether a new job may be begun: what follows from results must not overtake a job that waits."""
        if self._waiting and self._proposer.follows_results:
            return not self._gave_up and len(self._running) + len(self._waiting) < self._executor.size
        return not self._gave_up

    def _proposed(self, view: SweepView) -> Job | None:
        """The next job that the proposer wants to run, after those whose results are known."""
        while job := self._proposer.next():
            if not job.fingerprint:
                [job] = identify([job], self._outlines)
            self.jobs.append(job)
            if self._proposer.follows_results:
                self._kept.look_up([job])
            if not (outcome := self._kept.outcome(job)):
                return replace(job, begun=self._kept.is_begun(job))
            if self._proposer.follows_results:
                self._proposer.tell(job, outcome)
                view.kept(job, outcome)
        return None

    def _ended(self, ended: Ended, view: SweepView) -> None:
        job = ended.job
        self._running.remove(job.number)
        outcome = ended.outcome
        run = self._settle(ended, "FAILED", outcome.reason) if outcome.objective is None else None
        if run and run.has_ended_well and not ended.reported:
            outcome = Outcome(run.objective, "", run.measures, run.pruned)  # killed after it had ended its record
        self._outcomes[job.number] = outcome
        if outcome.objective is not None:
            self._proposer.tell(job, outcome)
            view.finished(job, outcome, ended.seconds)
            return
        failures = self._failures[job.number] = self._failures.get(job.number, 0) + 1
        again = failures <= self._retries
        if again:
            self._waiting.appendleft(replace(job, begun=True))
        else:
            self._proposer.tell(job, outcome)
        view.failed(job, outcome.reason, job.folder / LOG, again)
        lost = sum(count > self._retries for count in self._failures.values())
        if self._max_failures is not None and lost >= self._max_failures and not self._gave_up:
            self._gave_up = True
            self._waiting.clear()
            view.gave_up(self._max_failures)

    def _settle(self, ended: Ended, status: str, reason: str) -> PastRun | None:
        """See to it that a run that has ended without a result is recorded, and closed."""
        job = ended.job
        tags = {
            "fingerprint": job.fingerprint,
            "fingerprint.config": config_fingerprint(job.config),
            "overrides": " ".join(job.overrides),
            **record.objective_tags(job.config, job.digest),
            **job.tags,
        }
        opened = {
            "name": job.name or "run",
            "experiment": job.config.tracking.experiment,
            "parameters": record.parameters_of(record.recorded_config(job.config), job.config.runtime.model_dump()),
            "tags": {key: redact(value) for key, value in tags.items() if value},
        }
        return self._recorder.settle(ended.process, opened, job.folder, status, reason)

    def _stop(self) -> None:
        # A second signal does not make it faster: it would leave processes behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        for ended in self._executor.stop():
            self._settle(ended, "KILLED", "interrupted")
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def returned(self, job: Job) -> JobReturn:
        """What Hydra hands to the sweeper."""
        outcome = self._outcomes.get(job.number)
        if outcome and outcome.objective is not None:
            made = JobReturn(job.overrides, status=JobStatus.COMPLETED)
            made.return_value = outcome.objective
            return made
        made = JobReturn(job.overrides, status=JobStatus.FAILED)
        why = outcome.reason if outcome else "was not started, as too many runs failed"
        made.return_value = RunFailed(f"{job.name}: {why}")
        return made


def _is_free(job: Job) -> bool:
    """Whether no other process trains the run of this job."""
    return not job.config.resume or not job.config.tracking.enabled or Claim(job.fingerprint).is_free()
