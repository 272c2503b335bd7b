"""What came of a sweep: its runs ranked by the objective, only the keys that differ as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.config import Config
from experiments.evaluation import lower_is_better
from experiments.sweeps.jobs import Job

if TYPE_CHECKING:
    from experiments.tracking.sweep_record import Child

LOG = "run.log"  # a job's own output, in its folder


@dataclass(frozen=True)
class Row:
    """A run of the sweep, by its config.

    Attributes:
        status: FINISHED, FAILED, KILLED, RUNNING (on another machine), or "not run".
        differing: The overrides that are not the same in all runs, by key.
    """

    name: str
    status: str
    objective: float | None
    seconds: float | None
    run_id: str
    failure: str
    log: str
    differing: Mapping[str, str]

    def told(self) -> dict[str, Any]:
        """As a flat mapping."""
        own = {"objective": self.objective, "status": self.status, "seconds": self.seconds}
        return {
            **self.differing,
            **own,
            "run_id": self.run_id,
            "name": self.name,
            "failure": self.failure,
            "log": self.log,
        }


def rows_of(jobs: Sequence[Job], children: Sequence["Child"], returns: Mapping[int, JobReturn]) -> list[Row]:
    """One row a job, ranked: the best first, those without a result last.

    Args:
        jobs: All jobs of the sweep.
        children: The runs in its record, the latest first.
        returns: What the launcher returned, by the job's number; for runs that are not recorded.
    """
    by_print: dict[str, Child] = {}
    for child in children:
        known = by_print.setdefault(child.tags.get("fingerprint", ""), child)
        if child.status == "FINISHED" and known.status != "FINISHED":
            by_print[child.tags["fingerprint"]] = child
    rows = []
    for job in jobs:
        values = {key: value for key, _, value in (override.partition("=") for override in job.told_apart_by)}
        log = str(file) if (file := job.folder / LOG).is_file() else ""
        if job.fingerprint in by_print:
            child = by_print[job.fingerprint]
            failure = child.tags.get("failure", "")
            row = Row(job.name, child.status, child.objective, child.seconds, child.run_id, failure, log, values)
        elif (returned := returns.get(job.number)) is not None and returned.status == JobStatus.COMPLETED:
            row = Row(job.name, "FINISHED", returned.return_value, None, "", "", log, values)
        elif returned is not None:
            row = Row(job.name, "FAILED", None, None, "", str(returned._return_value), log, values)
        else:
            row = Row(job.name, "not run", None, None, "", "", log, values)
        rows.append(row)
    sign = 1 if lower_is_better(jobs[0].config.objective_metric) else -1
    return sorted(rows, key=lambda row: (row.status != "FINISHED", sign * (row.objective or 0.0)))


def show(console: Console, rows: Sequence[Row], config: Config, parent: str) -> None:
    """Print the ranking, then the failures, then what to do next."""
    metric = config.objective_metric
    columns = list(dict.fromkeys(key for row in rows for key in row.differing))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", justify="right")
    for column in columns:
        table.add_column(column, overflow="fold")
    table.add_column(metric, justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for rank, row in enumerate(rows, start=1):
        result = f"{row.objective:.4f}" if row.status == "FINISHED" and row.objective is not None else row.status
        values = [row.differing.get(key, "") for key in columns]
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        table.add_row(str(rank) if row.status == "FINISHED" else "", *values, result, seconds, row.run_id[:8])
    console.print(table)
    if metric.startswith("test_"):
        console.print(
            f"ranked by {metric}, as no run held out a validation set: what the best reaches on new images is less; "
            "data.validation_size=0.1 ranks by validation",
            highlight=False,
            soft_wrap=True,
        )
    for row in rows:
        if row.status == "FAILED":
            reason = f": {row.failure}" if row.failure else ""
            log = f"\n    log: {row.log}" if row.log else ""
            console.print(
                f"[red]{row.status}[/red] {escape(f'{row.name}{reason}{log}')}", highlight=False, soft_wrap=True
            )
    if parent:
        console.print(f"recorded beneath run {parent}", highlight=False, soft_wrap=True)
