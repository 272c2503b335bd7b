"""Which jobs of a sweep need not run, as a run of their fingerprint has finished before."""

from collections import Counter
from collections.abc import Sequence

from experiments.config.fingerprint import config_fingerprint
from experiments.sweeps.jobs import Job, Outcome
from experiments.tracking.provenance import other_machine
from experiments.tracking.summary import PastRun
from experiments.tracking.sweep_recorder import SweepRecorder


class Kept:
    """The runs of a sweep's jobs that were recorded before.

    Args:
        recorder: The sweep's recorder, which finds the runs.
        jobs: Those that are known when the sweep starts.
        reuses: Whether runs are looked for though the sweep is not resumed.

    Attributes:
        answers: The runs that have answered for jobs, by the numbers of these.
    """

    def __init__(self, recorder: SweepRecorder, jobs: Sequence[Job], *, reuses: bool = False) -> None:
        self._recorder, self._reuses = recorder, reuses
        self.answers = dict[int, PastRun]()
        self._runs = dict[str, list[PastRun]]()  # by fingerprint
        self._configs = set[str]()  # fingerprints of their configs alone
        self.look_up(jobs)

    def finished(self, job: Job) -> PastRun | None:
        """The finished run that a job would repeat; None: it has to run."""
        return next((run for run in self._of(job) if run.status in ("FINISHED", "INFEASIBLE")), None)

    def _of(self, job: Job) -> list[PastRun]:
        """The runs that may answer for a job, or that it may go on with."""
        runs = self._runs.get(job.fingerprint, [])
        return runs if job.reuses else [run for run in runs if self._recorder.is_own(run, job.tags)]

    def outcome(self, job: Job) -> Outcome | None:
        """What is known of a job without running it: its own run has ended before, or it would repeat another one."""
        runs = self._of(job)
        own = [run for run in runs if job.tags and run.has_ended_well and self._recorder.is_own(run, job.tags)]
        if not (run := next(iter(own), None) or self.finished(job)):
            return None
        self.answers[job.number] = run
        return Outcome(run.objective, "", run.measures, run.pruned, repeats="" if own else run.name)

    def is_begun(self, job: Job) -> bool:
        """Whether a job has a run that did not finish, which it goes on with."""
        runs = self._of(job)
        if job.tags:  # another trial of the same config may have failed
            runs = [run for run in runs if self._recorder.is_own(run, job.tags)]
        return bool(runs) and not self.finished(job) and self._recorder.resumes

    def line(self, jobs: Sequence[Job], threads: int | None) -> str:
        """Say how many jobs are kept, and why the others run.

        Args:
            jobs: Those that are known.
            threads: How many a job has here, where its config does not say; None: unknown.

        Returns:
            Such as: ``resume: 12 kept, 3 never ran, 1 failed before: rerun``.
        """
        why = Counter(self.why(job) for job in jobs)
        again = ", ".join(f"{count} {reason}" for reason, count in why.items() if reason)
        elsewhere = Counter(self._differs(job, threads) for job in jobs)
        kept = [f"; of those kept, {count} ran {how}" for how, count in elsewhere.items() if how]
        return f"resume: {why['']} kept" + (f", {again}: rerun" if again else "") + "".join(kept)

    def look_up(self, jobs: Sequence[Job]) -> None:
        """Look for the runs of jobs, as far as they are recorded now."""
        wanted = {job.fingerprint: list[PastRun]() for job in jobs}
        for run in self._recorder.past_runs([job.fingerprint for job in jobs], anywhere=self._reuses) if jobs else ():
            wanted.get(run.tags.get("fingerprint", ""), []).append(run)
            self._configs.add(run.tags.get("fingerprint.config", ""))
        self._runs |= wanted

    def why(self, job: Job) -> str:
        """Why a job has to run; empty: it need not."""
        statuses = {run.status for run in self._runs[job.fingerprint]}
        if self.finished(job):
            return ""
        if statuses:
            stopped = "stopped early by a search" if statuses == {"PRUNED"} else "interrupted"
            return "failed before" if "FAILED" in statuses else stopped
        changed = config_fingerprint(job.config) in self._configs
        return "ran with other code, data, versions or flags" if changed else "never ran"

    def _differs(self, job: Job, threads: int | None) -> str:
        """How the machine that a kept job ran on differs from this one; empty: it does not."""
        if not (run := self.finished(job)):
            return ""
        own = job.config.runtime.threads
        here = own if isinstance(own, int) else threads
        return other_machine(run.tags.get("hardware.processor", ""), run.threads, here)
