"""Every combination of a sweep: checked, those that finished before kept, the rest launched, all of them compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from experiments.config import RunFailed
from experiments.config.fingerprint import config_fingerprint, fingerprint
from experiments.data.sources import digest
from experiments.sweeps import foreign, pool, server
from experiments.sweeps.jobs import Job, prepare
from experiments.sweeps.results import as_row, runs_of, show
from experiments.tracking import process
from experiments.tracking.sweep_recorder import SweepRecorder
from hydra_plugins.experiments_sweeps import PoolLauncher

if TYPE_CHECKING:
    from experiments.tracking.sweep_record import Child


def sweep(
    overrides: Sequence[str], launcher: Launcher, context: HydraContext, master: DictConfig, skip_invalid: bool
) -> list[JobReturn]:
    """Carry out a sweep.

    Raises:
        Refused: A combination cannot run. Nothing was started.
        RunFailed: Runs did not finish. The others did.
    """
    parsed = OverridesParser.create(context.config_loader).parse_overrides(list(overrides))
    wanted, loader = combinations(parsed), context.config_loader
    forks = isinstance(launcher, PoolLauncher)
    jobs = prepare(wanted, loader, master, skip_invalid)
    if forks:
        server.start(jobs)
    first, console = jobs[0].config, Console()
    jobs = identify(jobs)
    recorder = SweepRecorder(first.tracking, server.recording_process if forks else process.start)
    before = recorder.open(
        list(dict.fromkeys(job.config.tracking.experiment for job in jobs)), overrides, swept(parsed), first.resume
    )
    todo, reasons = what_remains(jobs, before)
    if first.resume:
        console.print(_resume_line(len(jobs) - len(todo), reasons), highlight=False, soft_wrap=True)
    returns: list[JobReturn] = []
    status = "KILLED"
    try:
        if isinstance(launcher, PoolLauncher):
            returns = pool.run(todo, launcher, recorder, console, kept=len(jobs) - len(todo))
        elif todo:
            returns = foreign.launch(launcher, todo, recorder.run_id)
        status = ""
    finally:
        children = recorder.children(settle=status == "KILLED")
        runs = runs_of(jobs, children, dict(zip((job.number for job in todo), returns, strict=False)))
        failed = sum(run.status != "FINISHED" for run in runs)
        recorder.end(
            status or ("FAILED" if failed else "FINISHED"), first.objective_metric, [as_row(run) for run in runs]
        )
        show(console, runs, first, recorder.run_id)
    if failed:
        raise RunFailed(f"{failed} of {len(runs)} runs did not finish; the same command with resume=true goes on")
    return returns


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Multiply out the values of a sweep: one list of overrides a job. Of a key that comes twice, the last counts."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise HydraException(f"{override.input_line} gives no values to try one by one; write {key}=1,2,3")
    return [list(job) for job in product(*values.values())]


def swept(overrides: Sequence[Override]) -> dict[str, str]:
    """The values that are swept, by key, as they were typed."""
    return {
        override.get_key_element(): str(override.input_line).partition("=")[2]
        for override in overrides
        if override.is_sweep_override()
    }


def identify(jobs: Sequence[Job]) -> list[Job]:
    """Give each job its fingerprint. Every data set is read, and checked, once.

    Raises:
        Refused: A data set is damaged.
    """
    digests = {place: digest(place) for place in {job.config.data for job in jobs}}
    return [replace(job, fingerprint=fingerprint(job.config, digests[job.config.data])) for job in jobs]


def what_remains(jobs: Sequence[Job], before: Sequence["Child"]) -> tuple[list[Job], Counter[str]]:
    """Find the jobs that have to run: those without a finished run of their fingerprint; and why, with how many."""
    todo, reasons = [], Counter[str]()
    by_print: dict[str, set[str]] = {}
    for child in before:
        by_print.setdefault(child.tags.get("fingerprint", ""), set()).add(child.status)
        by_print.setdefault(child.tags.get("fingerprint.config", ""), set())
    for job in jobs:
        statuses = by_print.get(job.fingerprint)
        if statuses and "FINISHED" in statuses:
            continue
        todo.append(replace(job, begun=statuses is not None))
        if statuses is None:
            changed = config_fingerprint(job.config) in by_print
            reasons["ran with other code or data" if changed else "never ran"] += 1
        else:
            reasons["failed before" if "FAILED" in statuses else "interrupted"] += 1
    return todo, reasons


def _resume_line(kept: int, reasons: Mapping[str, int]) -> str:
    """Such as: 12 kept, 3 never ran, 1 failed before: rerun."""
    again = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"resume: {kept} kept" + (f", {again}: rerun" if again else "")
