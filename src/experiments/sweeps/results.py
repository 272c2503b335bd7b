"""What came of a sweep: its runs ranked by the objective, then its configs over their seeds."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from experiments.config import Refused
from experiments.config.objective import goals_of, written
from experiments.ranking import tables
from experiments.ranking.comparison import best_first, by_run, comparable, compare
from experiments.ranking.frame import Row, frame, parameters, plain, row
from experiments.ranking.trials import TRIAL
from experiments.sweeps.jobs import Job
from experiments.system.terminal import say
from experiments.tracking.store import redact
from experiments.tracking.summary import status_of

if TYPE_CHECKING:
    import pandas as pd

    from experiments.tracking.summary import PastRun

LOG = "run.log"  # a job's own output, in its folder


def import_pandas() -> None:
    """Import pandas, which the ranking needs, in the background while the runs are trained: it takes half a second."""
    Thread(target=import_module, args=("pandas",), daemon=True).start()


def runs_of(jobs: Sequence[Job], past: Sequence["PastRun"], returns: Mapping[int, JobReturn]) -> "pd.DataFrame":
    """One run a job: group by group of those that can be compared, the best first, those without a result last.

    Its parameters are what differs between the jobs.

    Args:
        jobs: All jobs of the sweep.
        past: The recorded runs, the latest first.
        returns: What the launcher returned, by the job's number; for runs that are not recorded.
    """
    known: dict[tuple[str, str], PastRun] = {}
    for child in sorted(past, key=lambda child: child.status != "FINISHED"):
        for which in _beside_fingerprint(child.tags, child.tags.get("overrides", "")):
            known.setdefault((child.tags.get("fingerprint", ""), which), child)
    rows = []
    for job in jobs:
        keys = _beside_fingerprint(job.tags, redact(" ".join(job.overrides)))
        run = next(filter(None, (known.get((job.fingerprint, key)) for key in keys)), None)
        rows.append(_row(job, run, returns.get(job.number)))
    return best_first(frame(rows).assign(**{TRIAL: [job.tags.get(TRIAL, "") for job in jobs]}))


def _beside_fingerprint(tags: Mapping[str, str], overrides: str) -> list[str]:
    """What tells runs of one fingerprint apart, the surest first.

    A search may run a config again; a grid may sweep what cannot matter, and may have been typed otherwise before.
    """
    return [*([f"trial {tags['trial']}"] if "trial" in tags else []), overrides, ""]


def _row(job: Job, child: "PastRun | None", returned: JobReturn | None) -> Row:
    told_apart_by = {key: redact(value) for key, _, value in (text.partition("=") for text in job.told_apart_by)}
    log = str(file) if (file := job.folder / LOG).is_file() else ""
    goals = written(goals_of(job.config))
    made = partial(row, name=job.name, parameters=told_apart_by, log=log, goals=goals, measured=job.objective)
    if child is not None:
        return made(
            child.run_id,
            status=status_of(child.status, job.tags, child.measures),
            objective=child.objective,
            seconds=child.seconds,
            metrics=child.measures,
            failure=child.tags.get("failure", ""),
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


def as_rows(runs: "pd.DataFrame") -> list[dict[str, Any]]:
    """The runs as flat mappings; None: not known."""
    shown = ["objective", "measured_as", "status", "seconds", "run_id", "name", "failure", "log", "uuid"]
    return plain(parameters(runs).join(runs[shown]))


def show(console: Console, runs: "pd.DataFrame", parent: str, recorded: Sequence[str]) -> None:
    """Print the runs, the configs if there are several seeds, the failures, and what to do next.

    One ranking for each group of runs that can be compared.
    """
    groups, tested = comparable(runs), False
    for objective, group in groups.items():
        comparison = compare(group, "", objective, circumstances=())
        several = comparison.has_several_seeds
        was_tested = several and len(comparison.configs) > 1
        if len(groups) > 1:
            say(console, f"measured as {objective.measured_as}:")
        tables.show(console, by_run(comparison))
        if several:
            say(console, "over the seeds:")
            tables.show(console, comparison)
        # How it was tested is said by `compare`, where that can be asked.
        say(console, *tables.notes(replace(comparison, method="") if parent and was_tested else comparison))
        tables.show_failures(console, comparison.unfinished)
        tested |= was_tested
    if parent and tested:
        say(console, f"how that was decided, and more:  python -m experiments.compare sweep={parent[:8]}")
    say(console, *recorded)
