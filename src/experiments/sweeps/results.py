"""What came of a sweep: its runs ranked by the objective, then its configs over their seeds."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from experiments.config import Refused
from experiments.ranking import tables
from experiments.ranking.comparison import Comparison, Run, best_first, by_run, comparable, compare
from experiments.ranking.filters import ordered
from experiments.sweeps.jobs import Job
from experiments.tracking.store import redact

if TYPE_CHECKING:
    from experiments.tracking.summary import PastRun

LOG = "run.log"  # a job's own output, in its folder


def runs_of(jobs: Sequence[Job], past: Sequence["PastRun"], returns: Mapping[int, JobReturn]) -> list[Run]:
    """One run a job: group by group of those that can be compared, the best first, those without a result last.

    Its parameters are what differs between the jobs.

    Args:
        jobs: All jobs of the sweep.
        past: The recorded runs, the latest first.
        returns: What the launcher returned, by the job's number; for runs that are not recorded.
    """
    known: dict[tuple[str, str], PastRun] = {}
    for child in past:
        fingerprint, overrides = child.tags.get("fingerprint", ""), child.tags.get("overrides", "")
        for key in ((fingerprint, overrides), (fingerprint, "")):
            if key not in known or (child.status == "FINISHED" and known[key].status != "FINISHED"):
                known[key] = child
    # By the overrides, too, as what cannot matter may be swept; they may have been typed otherwise before.
    found = [(job, known.get((job.fingerprint, redact(" ".join(job.overrides))))) for job in jobs]
    return best_first(
        [_run(job, child or known.get((job.fingerprint, "")), returns.get(job.number)) for job, child in found]
    )


def _run(job: Job, child: "PastRun | None", returned: JobReturn | None) -> Run:
    parameters = {key: redact(value) for key, _, value in (override.partition("=") for override in job.told_apart_by)}
    log = str(file) if (file := job.folder / LOG).is_file() else ""
    made = partial(Run, name=job.name, parameters=parameters, log=log, measured=job.objective)
    if child is not None:
        failure = child.tags.get("failure", "")
        return made(
            child.run_id,
            status=child.status,
            objective=child.objective,
            seconds=child.seconds,
            failure=failure,
            uuid=child.uuid,
        )
    if returned is None:
        return made("", status="not run")
    if returned.status == JobStatus.COMPLETED:
        return made("", status="FINISHED", objective=returned.return_value)
    error = error_of(returned)
    return made("", status="FAILED", failure=error.reason if isinstance(error, Refused) else str(error))


def error_of(returned: JobReturn) -> Exception:
    """Why a job failed."""
    try:
        with redirect_stderr(io.StringIO()):  # to which Hydra writes a line of its own
            _ = returned.return_value
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def as_row(run: Run) -> dict[str, Any]:
    """A run as a flat mapping."""
    return {
        **run.parameters,
        "objective": run.objective,
        "measured_as": run.measured.measured_as if run.measured else "",
        "status": run.status,
        "seconds": run.seconds,
        "run_id": run.run_id,
        "name": run.name,
        "failure": run.failure,
        "log": run.log,
        "uuid": run.uuid,
    }


def show(console: Console, runs: Sequence[Run], parent: str, recorded: Sequence[str]) -> None:
    """Print the runs, the configs if there are several seeds, the failures, and what to do next.

    One ranking for each group of runs that can be compared.
    """
    groups, tested = comparable(runs), False
    for objective, group in groups.items():
        if len(groups) > 1:
            tables.say(console, [f"measured as {objective.measured_as}:"])
        comparison = compare(group, "", objective, circumstances=())
        several = tables.several_seeds(comparison) and len(comparison.standings) > 1
        _show_group(console, comparison, how=not (parent and several))
        tested |= several
    if parent and tested:
        tables.say(console, [f"how that was decided, and more:  python -m experiments.compare sweep={parent[:8]}"])
    tables.say(console, recorded)


def _show_group(console: Console, comparison: Comparison, how: bool) -> None:
    """Print a ranking; `how`: whether its notes say how it was tested."""
    each = by_run(comparison)
    tables.show(console, ordered(each))
    if tables.several_seeds(comparison):
        tables.say(console, ["over the seeds:"])
        tables.show(console, ordered(comparison))
    tables.say(console, tables.notes(comparison if how else replace(comparison, method="")))
    tables.show_failures(console, comparison.unfinished)
