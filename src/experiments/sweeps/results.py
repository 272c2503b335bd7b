"""What came of a sweep: its runs ranked by the objective, then its configs over their seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from experiments import tables
from experiments.comparison import Run, by_run, compare
from experiments.config import Config
from experiments.evaluation import lower_is_better
from experiments.sweeps.jobs import Job
from experiments.tracking.store import redact

if TYPE_CHECKING:
    from experiments.tracking.sweep_record import Child

LOG = "run.log"  # a job's own output, in its folder


def runs_of(jobs: Sequence[Job], children: Sequence["Child"], returns: Mapping[int, JobReturn]) -> list[Run]:
    """One run a job, ranked: the best first, those without a result last. Its parameters are what tells it apart.

    Args:
        jobs: All jobs of the sweep.
        children: The runs in its record, the latest first.
        returns: What the launcher returned, by the job's number; for runs that are not recorded.
    """
    known: dict[tuple[str, str], Child] = {}
    for child in children:
        fingerprint, overrides = child.tags.get("fingerprint", ""), child.tags.get("overrides", "")
        for key in ((fingerprint, overrides), (fingerprint, "")):
            if key not in known or (child.status == "FINISHED" and known[key].status != "FINISHED"):
                known[key] = child
    # By the overrides, too, as what cannot matter may be swept; they may have been typed otherwise before.
    found = [(job, known.get((job.fingerprint, redact(" ".join(job.overrides))))) for job in jobs]
    runs = [_run(job, child or known.get((job.fingerprint, "")), returns.get(job.number)) for job, child in found]
    sign = 1 if lower_is_better(jobs[0].config.objective_metric) else -1
    return sorted(runs, key=lambda run: (run.status != "FINISHED", sign * (run.objective or 0.0)))


def _run(job: Job, child: "Child | None", returned: JobReturn | None) -> Run:
    parameters = {key: redact(value) for key, _, value in (override.partition("=") for override in job.told_apart_by)}
    log = str(file) if (file := job.folder / LOG).is_file() else ""
    if child is not None:
        failure = child.tags.get("failure", "")
        return Run(
            child.run_id, job.name, child.status, parameters, child.objective, child.seconds, failure=failure, log=log
        )
    if returned is None:
        return Run("", job.name, "not run", parameters, log=log)
    if returned.status == JobStatus.COMPLETED:
        return Run("", job.name, "FINISHED", parameters, returned.return_value, log=log)
    return Run("", job.name, "FAILED", parameters, failure=str(returned._return_value), log=log)


def as_row(run: Run) -> dict[str, Any]:
    """A run as a flat mapping."""
    return {
        **run.parameters,
        "objective": run.objective,
        "status": run.status,
        "seconds": run.seconds,
        "run_id": run.run_id,
        "name": run.name,
        "failure": run.failure,
        "log": run.log,
    }


def show(console: Console, runs: Sequence[Run], config: Config, parent: str) -> None:
    """Print the runs, the configs if there are several seeds, the failures, and what to do next."""
    comparison = compare(runs, "", config.objective_metric, circumstances=())
    each = by_run(comparison)
    tables.show(console, each, list(enumerate(each.standings, start=1)))
    notes = tables.notes(comparison)
    if tables.several_seeds(comparison):
        tables.say(console, ["over the seeds:"])
        tables.show(console, comparison, list(enumerate(comparison.standings, start=1)))
        if parent and len(comparison.standings) > 1:
            notes = tables.notes(replace(comparison, method=""))
            notes.append(f"how that was decided, and more:  python -m experiments.compare sweep={parent[:8]}")
    tables.say(console, notes)
    tables.show_failures(console, comparison.unfinished)
    if parent:
        tables.say(console, [f"recorded beneath run {parent}"])
