"""The jobs of a sweep: composed and checked, all before the first one starts."""

import os
import pickle
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.cli.checks import check_places, group_defaults, output_problems
from experiments.config import Config, Problem, Refused, check
from experiments.config.fingerprint import fingerprint
from experiments.config.objective import Objective, objective_of
from experiments.config.problems import assign, on_one_line
from experiments.data import Outlines, outlines
from experiments.sweeps.composer import Composer
from experiments.system.terminal import short_numbers
from experiments.tracking.store import redact

# Names of tags by which sweeps and searches know their runs.
OUR_TAGS = re.compile(r"pruned|trial|constraints|objectives|sweep(\..*)?|kept_runs\..*")


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        number: Its place in the sweep, from 0.
        told_apart_by: The overrides that distinguish it from the other jobs.
        overrides: All of them, as Hydra reads them.
        folder: Where its output goes.
        composed: The composed config with Hydra's own part, pickled: that of the sweep's start, whatever happens to
            the files later, in a tenth of the memory.
        config: The same, checked.
        fingerprint: Of config, code and data; empty until the data was read.
        digest: Of the data; empty until then, too.
        begun: It was interrupted before, and goes on.
        asks: It waits after each epoch for the answer whether it is to stop.
        reuses: A finished run of the same fingerprint, from any sweep, may answer for it.
        tags: Of its run, beside those of the config.
    """

    number: int
    told_apart_by: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: Path
    composed: bytes
    config: Config
    fingerprint: str = ""
    digest: str = ""
    begun: bool = False
    asks: bool = False
    reuses: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells it apart from the other jobs."""
        return redact(short_numbers(on_one_line(" ".join(self.told_apart_by))))

    @cached_property
    def objective(self) -> Objective:
        """What it is ranked by, and which jobs can be compared with it."""
        return objective_of(self.config, self.digest)


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        objective: What it is ranked by; None: it failed.
        reason: Why it failed.
        measures: Of the finished model, by name.
        pruned: The epoch after which it was stopped by an answer; 0: it was not.
        repeats: The name of the run of an earlier sweep, or of another job, that answers for it; empty: it was run.
    """

    objective: float | None = None
    reason: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    pruned: int = 0
    repeats: str = ""


def prepare(
    combinations: Sequence[Sequence[str]],
    composer: Composer,
    skip_invalid: bool = False,
    first: int = 0,
    common: Collection[str] | None = None,
) -> list[Job]:
    """Compose and check the configs of all jobs.

    Args:
        combinations: The overrides of each job.
        composer: Composes them.
        skip_invalid: Leave out those that cannot run, and say so, rather than to refuse them all.
        first: The number of the first job.
        common: Overrides that all jobs of the sweep have; None: those that all of these have.

    Raises:
        Refused: Jobs cannot run; each problem once, with the jobs that have it.
    """
    jobs = list[Job]()
    seen: dict[Any, list[Problem]] = {}  # what is wrong with places for data and records; a look may take seconds
    found: dict[Problem, list[str]] = {}
    if common is None:
        common = set.intersection(*map(set, combinations)) if len(combinations) > 1 else ()
    for number, overrides in enumerate(combinations, start=first):
        own = tuple(override for override in overrides if override not in common)
        try:
            composed = composer.compose(overrides)
            folder = _numbered(composed, number)
            if problems := output_problems(composed):
                raise Refused(problems)
            config = _checked(composed, seen)
            jobs.append(Job(number, own, tuple(overrides), folder, pickle.dumps(composed), config))
        except Refused as refused:
            for problem in refused.problems:
                found.setdefault(problem, []).append(" ".join(own))
    if problems := [_of_jobs(problem, affected, len(combinations)) for problem, affected in found.items()]:
        if not (skip_invalid and jobs):
            raise Refused(problems)
        print(f"{len(combinations) - len(jobs)} of {len(combinations)} combinations are left out:", file=sys.stderr)
        print(*(str(problem).replace("error: ", "  ", 1) for problem in problems), sep="\n", file=sys.stderr)
    _refuse_shared_folders(jobs)
    return jobs


def _numbered(composed: DictConfig, number: int) -> Path:
    """Have a config say which job it is of; return the folder of the job's output."""
    composed.hydra.job.num, composed.hydra.job.id = number, str(number)
    folder = Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir)).absolute()
    composed.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().cfg = composed  # type: ignore[assignment] # what ${hydra:...} reads
    return folder


def identify(jobs: Sequence[Job], known: Outlines | None = None) -> list[Job]:
    """Give each job its fingerprint. Every data set is read, and checked, once.

    Args:
        jobs: As `prepare` makes them.
        known: What was read for other jobs of the sweep, and is not read again; what is read now is added.

    Raises:
        Refused: A data set is damaged.
    """
    trust = sorted({package for job in jobs for package in job.config.trust})
    found = outlines(((job.config.data, job.config.task.name) for job in jobs), trust, known)
    return [
        replace(job, digest=digest, fingerprint=fingerprint(job.config, digest, sizes))
        for job, (digest, sizes) in ((job, found[job.config.data, job.config.task.name]) for job in jobs)
    ]


def _refuse_shared_folders(jobs: Sequence[Job]) -> None:
    """Runs side by side in one folder would overwrite each other's checkpoints and models."""
    by_folder: dict[str, list[Job]] = {}
    for job in jobs:
        by_folder.setdefault(os.path.abspath(job.folder), []).append(job)
    for folder, sharing in by_folder.items():
        if len(sharing) > 1:
            names = " and ".join(job.name for job in sharing[:2]) + f" and {len(sharing) - 2} more" * (len(sharing) > 2)
            what = f"{len(sharing)} runs would write into {folder}: {names}; each needs a folder of its own"
            raise Refused(Problem("hydra.sweep.subdir", what, assign("hydra.sweep.subdir", "${hydra.job.num}")))


def _checked(composed: DictConfig, seen: dict[Any, list[Problem]]) -> Config:
    config = check(composed, Config, partial(group_defaults, composed))
    if ours := [key for key in config.tracking.tags if OUR_TAGS.fullmatch(key)]:
        where = f"tracking.tags.{ours[0]}"
        raise Refused(Problem(where, "is a tag that sweeps set themselves; choose another name", f"~{where}"))
    places = (
        (config.data.name, config.data.path),
        (config.tracking.enabled, config.tracking.uri),
        tuple(config.trust),
    )
    if places not in seen:
        seen[places] = []
        try:
            check_places(config)
        except Refused as refused:
            seen[places] = refused.problems
    if seen[places]:
        raise Refused(seen[places])
    return config


def _of_jobs(problem: Problem, affected: Sequence[str], total: int) -> Problem:
    if len(affected) == total:
        return problem
    shown = affected[0] if len(affected) == 1 else f"{affected[0]} and {len(affected) - 1} more"
    return Problem(
        problem.where, f"{problem.what} (in {len(affected)} of {total} combinations: {shown})", problem.remedy
    )
