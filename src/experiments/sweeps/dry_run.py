"""What a sweep would do, and how long it would take, without doing any of it: ``hydra.sweeper.dry_run=true``."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import fmean, median

from experiments.sweeps.executors import Executor
from experiments.sweeps.jobs import Job
from experiments.sweeps.kept import Kept
from experiments.sweeps.proposers import Proposer
from experiments.system.terminal import Console, say
from experiments.tracking import record
from experiments.tracking.lookup import finished_on
from experiments.tracking.store import store_uri
from experiments.tracking.summary import PastRun
from experiments.tracking.sweep_recorder import SweepRecorder

# Beginnings of the parameters that an epoch's time depends on.
DATA, MODEL = ("data.", "task."), ("model.", "batch_size", "precision")
WITHOUT_EFFECT = ("data.path", "model.dropout")


def show(console: Console, proposer: Proposer, recorder: SweepRecorder, executor: Executor | None) -> None:
    """Print the runs, which of them would be kept, and the time that the others would take.

    Args:
        console: Where.
        proposer: Of the sweep; its jobs have their fingerprints.
        recorder: Of the sweep; it has looked for an earlier one.
        executor: Of the runs; None: a launcher of another package runs them.
    """
    jobs, resume, total = proposer.jobs, proposer.jobs[0].config.resume, proposer.total
    ranked_by = " and ".join(dict.fromkeys(job.objective.metric for job in jobs))
    units = proposer.unit.removesuffix("s") if total == 1 else proposer.unit
    count = "" if total is None else f"{'at most ' * proposer.follows_results}{total} "
    say(console, f"{count}{units}, ranked by {ranked_by}")
    say(console, *proposer.plan(recorder.goes_on_in), *[proposer.progress] * (resume and bool(proposer.progress)))
    todo, number = jobs, proposer.most_runs
    if not proposer.follows_results:
        kept = Kept(recorder, jobs, reuses=proposer.reuses)
        todo = [job for job in jobs if not kept.finished(job)]
        number = len(todo)
        for job in jobs:
            run, width = kept.finished(job), len(str(len(jobs)))
            say(console, f"{job.number + 1:{width}}  {job.name}" + (f"  kept: {run.name}" if run else ""))
        if resume:
            say(console, kept.line(jobs, executor.threads if executor else None))
    tracking, experiments = jobs[0].config.tracking, list({job.config.tracking.experiment for job in jobs})
    digests = {job.digest for job in jobs} if tracking.enabled else ()
    past, unread = finished_on(store_uri(tracking), experiments, digests)
    time = unread and f"not known, as the store cannot be read ({unread})"
    time = time or _time(todo, past, number, executor, at_most=proposer.follows_results)
    say(console, f"time: {time}")
    say(console, "a dry run: nothing was started, and nothing recorded")


def _time(
    jobs: Sequence[Job], past: Sequence[PastRun], number: int | None, executor: Executor | None, *, at_most: bool
) -> str:
    """How long runs would take, by earlier ones, in words.

    Args:
        jobs: All of the runs, or examples of them.
        past: Finished runs.
        number: How many runs there are; None: unknown.
        executor: Of the runs.
        at_most: Whether there may be fewer.
    """
    if number == 0:
        return "none, as nothing is left to run"
    found = [_most_alike(job, past, executor) for job in jobs]
    if lacking := sum(not alike for alike, _ in found):
        which = f" {lacking} of the {len(jobs)} runs" if lacking < len(jobs) else ""
        return f"there is no earlier run on the same data to estimate{which} from"
    seconds = fmean(_seconds(job.config.epochs, alike) for job, (alike, _) in zip(jobs, found, strict=True))
    count = len({run.run_id for alike, _ in found for run in alike})
    by = f"by {count} earlier run{'s' * (count > 1)} on the same data"
    by += ", with the same model" * all(is_same for _, is_same in found)
    if number is None:
        return f"about {_shown(seconds)} a run, {by}"
    at_once = min(executor.size or 1, number) if executor else 1
    how = f"{at_once} at a time" if executor and executor.size else "one after the other"
    runs = f"{'at most ' * at_most}{number} run{'s' * (number > 1)}"
    return f"about {_shown(seconds * number / at_once)} for {runs}, {how}, {by}"


def _most_alike(job: Job, past: Sequence[PastRun], executor: Executor | None) -> tuple[list[PastRun], bool]:
    """Runs on the same data; of them those most like the job; whether their model is the same.

    Alike are runs with the same model, with as many threads, and runs of sweeps, which do not wait for imports.
    """
    parameters = record.parameters_of(record.recorded_config(job.config), {})
    data, model, own = _chosen(parameters, DATA), _chosen(parameters, MODEL), job.config.runtime.threads
    threads = str(own if isinstance(own, int) else executor and executor.threads)
    usable = [run for run in past if _is_usable(run) and _chosen(run.parameters, DATA) == data]
    likeness = [
        (_chosen(run.parameters, MODEL) == model, run.threads == threads, "mlflow.parentRunId" in run.tags)
        for run in usable
    ]
    most = max(likeness, default=(False, False, False))
    return [run for run, like in zip(usable, likeness, strict=True) if like == most], most[0]


def _is_usable(run: PastRun) -> bool:
    return {"fit_seconds", "seconds_per_epoch"} <= run.measures.keys()


def _seconds(epochs: int, runs: Sequence[PastRun]) -> float:
    """How long a run of so many epochs takes: the medians of an epoch, and of all beside the epochs."""
    fits = [run.measures["fit_seconds"] for run in runs]
    epoch = median(run.measures["seconds_per_epoch"] for run in runs)
    return epochs * epoch + median(max(run.seconds - fit, 0) for fit, run in zip(fits, runs, strict=True))


def _chosen(parameters: Mapping[str, str], keys: tuple[str, ...]) -> dict[str, str]:
    return {key: value for key, value in parameters.items() if key.startswith(keys) and key not in WITHOUT_EFFECT}


def _shown(seconds: float) -> timedelta:
    return timedelta(seconds=max(round(seconds), 1))
