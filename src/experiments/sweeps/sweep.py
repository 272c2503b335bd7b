"""A sweep: its jobs proposed, those that finished before kept, the others run, all of them compared."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from experiments.cli.checks import remove_empty_folders
from experiments.config import Problem, Refused, RunFailed
from experiments.sweeps import batches, dry_run
from experiments.sweeps.composer import Composer
from experiments.sweeps.jobs import Job, identify, prepare
from experiments.sweeps.kept import Kept
from experiments.sweeps.proposers import Proposer
from experiments.sweeps.proposers.grid import Grid
from experiments.sweeps.results import as_rows, import_pandas, runs_of, show
from experiments.sweeps.schedule import Schedule
from experiments.sweeps.view import SweepView
from experiments.system.terminal import Console, say
from experiments.tracking.summary import ENDED_WELL
from experiments.tracking.sweep_recorder import SweepRecorder
from hydra_plugins.experiments_sweeps import ExecutorLauncher

if TYPE_CHECKING:
    import pandas as pd

    from hydra_plugins.experiments_sweeps import ProposerSweeper


def sweep(sweeper: "ProposerSweeper", arguments: Sequence[str], launcher: Launcher) -> list[JobReturn]:
    """Carry out a sweep.

    Args:
        sweeper: Has the proposer and its settings.
        arguments: The overrides of the command line.
        launcher: Ours has an executor; one of another package takes all jobs as one batch.

    Returns:
        What came of the jobs that were run.

    Raises:
        Refused: A combination cannot run. Nothing was started.
        RunFailed: Runs did not finish. The others did.
    """
    loader, master = sweeper.context.config_loader, sweeper.master
    module, settings = sweeper.proposer
    proposer = module.propose(settings, arguments, loader, partial(prepare, composer=Composer(loader, master)))
    if not proposer.jobs:
        raise Refused(Problem("hydra.sweeper.proposer", f"{module.__name__} proposes no job to begin with"))
    own = launcher if isinstance(launcher, ExecutorLauncher) else None
    if proposer.follows_results and not own:
        what = "takes all jobs as one batch, but this proposer chooses the next jobs from earlier results"
        raise Refused(Problem("hydra/launcher", what, "hydra/launcher=pool"))
    with ExitStack() as opened:
        if own and not settings.dry_run:
            own.executor.prepare(proposer.jobs)
            opened.callback(own.executor.close)
        first = proposer.jobs[0].config
        made = SweepRecorder(first.tracking, resume=first.resume, dry=settings.dry_run)
        recorder = opened.enter_context(closing(made))
        opened.callback(proposer.close)
        proposer.jobs = identify(proposer.jobs)
        _ask_store(recorder, proposer)
        if settings.dry_run:
            executor = own.executor if own else None
            dry_run.show(Console(), proposer, recorder, executor)
            remove_empty_folders()
            return []
        return _carry_out(proposer, launcher, recorder, Path(master.hydra.sweep.dir))


def _ask_store(recorder: SweepRecorder, proposer: Proposer) -> None:
    """Ask the store whether it takes the sweep, and what it has of an earlier one."""
    experiments = list(dict.fromkeys(job.config.tracking.experiment for job in proposer.jobs))
    overrides, swept, identity = proposer.overrides, proposer.swept, proposer.identity
    alone = proposer.follows_results
    recorder.open(experiments, overrides, swept, identity, proposer.goes_on_with, proposer.tags, alone=alone)


def _carry_out(proposer: Proposer, launcher: Launcher, recorder: SweepRecorder, folder: Path) -> list[JobReturn]:
    console, resume = Console(), proposer.jobs[0].config.resume
    known = [] if proposer.follows_results else proposer.jobs
    own = launcher if isinstance(launcher, ExecutorLauncher) else None
    kept = Kept(recorder, known, reuses=proposer.reuses)
    todo = [job for job in known if not kept.finished(job)]
    if own and (todo or proposer.follows_results):
        own.executor.wait_until_ready()
    recorder.begin(folder, proposer.total, proposer.unit, [run for job in known if (run := kept.finished(job))])
    if resume and known:
        say(console, kept.line(known, own.executor.threads if own else None))
    for job in known:
        if outcome := kept.outcome(job):
            proposer.tell(job, outcome)
    before: Sequence[Job] = ()
    schedule, returns, status = None, dict[int, JobReturn](), "KILLED"
    try:
        before = proposer.begin(recorder.output or folder)
        if resume and proposer.progress:
            say(console, proposer.progress)
        if own:
            import_pandas()
            schedule = Schedule(proposer, own.executor, recorder, kept, own.settings)
            carry_out(schedule, own, console, proposer)
            returns = {job.number: schedule.returned(job) for job in schedule.jobs if not kept.outcome(job)}
        elif todo:
            made = batches.launch(launcher, todo, recorder.parent, resume)
            returns = dict(zip((job.number for job in todo), made, strict=False))
        status = ""
    except RunFailed:
        status = "FAILED"
        raise
    finally:
        jobs = [*known] or [*before, *(schedule.jobs if schedule else ())]
        past = recorder.runs([job.fingerprint for job in jobs], elsewhere=not own, interrupted=bool(status))
        runs = runs_of(jobs, [*past, *kept.answers.values()], returns)
        if proposer.follows_results:  # a trial that repeats another one has no run of its own
            runs = runs[~(runs["uuid"].ne("") & runs.duplicated("uuid"))]
        failed = _end(proposer, recorder, console, runs, status)
    if failed:
        goes_on = proposer.total is None or proposer.done < proposer.total or not proposer.follows_results
        remedy = "; the same command with resume=true goes on" if goes_on else ""
        raise RunFailed(f"{failed} of {len(runs)} runs did not finish{remedy}")
    return list(returns.values())


def _end(proposer: Proposer, recorder: SweepRecorder, console: Console, runs: "pd.DataFrame", status: str) -> int:
    """Record and show the results; return how many runs did not finish, and were to.

    Args:
        proposer: Of the sweep.
        recorder: Of the sweep.
        console: Where the results are shown.
        runs: The results.
        status: FAILED or KILLED, where the sweep did not come to its end; else empty.
    """
    failed = int((~runs["status"].isin(ENDED_WELL)).sum())
    if proposer.tolerates_failures and proposer.done == proposer.total and (runs["status"] == "FINISHED").any():
        failed = 0
    recorded = recorder.end(status or ("FAILED" if failed else "FINISHED"), as_rows(runs), proposer.files())
    goes_on = ["the same command with resume=true goes on"] if status == "KILLED" and recorder.run_id else []
    show(console, runs, recorder.run_id, [*proposer.remarks, *recorded, *goes_on])
    return failed


def carry_out(schedule: Schedule, launcher: ExecutorLauncher, console: Console, proposer: Proposer) -> None:
    """Carry out a schedule, and show how it goes, if anything is to be done."""
    if proposer.total != proposer.done:
        objectives = list(dict.fromkeys(job.objective for job in proposer.jobs))
        with SweepView(console, objectives, proposer, launcher.executor.size) as view:
            schedule.carry_out(view)


def launch(launcher: ExecutorLauncher, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Carry out the jobs of another package's sweeper. They have no parent run."""
    loader, master = launcher.hydra_context.config_loader, launcher.master
    jobs = prepare(job_overrides, Composer(loader, master), first=first)
    launcher.executor.prepare(jobs)
    launcher.executor.wait_until_ready()
    with closing(SweepRecorder(jobs[0].config.tracking, writes=False)) as recorder:
        proposer = Grid(identify(jobs))
        schedule = Schedule(proposer, launcher.executor, recorder, Kept(recorder, proposer.jobs), launcher.settings)
        carry_out(schedule, launcher, Console(), proposer)
        return [schedule.returned(job) for job in jobs]
