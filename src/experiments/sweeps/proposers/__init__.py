"""What a sweep runs next: a module each, which ``hydra.sweeper.proposer`` names.

A module has ``Settings``, the other keys of ``hydra.sweeper`` with their defaults, and a function ``propose``, see
`Propose`. A module of a package of one's own is named with it: ``mypackage.mymodule``, with ``trust=[mypackage]``.
All have the key ``dry_run``: the sweep is described, by `Proposer.plan` too, and not carried out.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hydra.core.config_loader import ConfigLoader

from experiments.sweeps.jobs import Job, Outcome


class Proposer(ABC):
    """Says what to run next.

    Args:
        jobs: Those that it knows before there is any result. They are checked, and their packages and data are loaded
            once for all. There is at least one. A launcher that takes one batch runs them in this order.
        overrides: Of all jobs, as they were typed, with those of a preset.
        swept: What differs between jobs, by key, as it was typed.
        total: Number of jobs in all; None: it depends on their results.

    Attributes:
        follows_results: Whether the next jobs follow from the results of those before. If so, `jobs` are examples,
            which are run only if `next` proposes them, too.
        reuses: Whether a finished run of the same fingerprint answers for a job, though the sweep is not resumed.
        done: How many of `total` have ended.
        tags: Of the sweep's run, beside those of every sweep.
        unit: What `total` and `done` count, in words.
        runs_each: The largest number of runs of one of these units.
        tolerates_failures: Whether the sweep has finished though some of its runs have failed.
    """

    follows_results = False
    reuses = False
    unit = "runs"
    tolerates_failures = False
    runs_each = 1

    def __init__(
        self, jobs: Sequence[Job], overrides: Sequence[str], swept: Mapping[str, str], total: int | None
    ) -> None:
        self.jobs, self.overrides, self.swept, self.total, self.done = jobs, overrides, swept, total, 0
        self.tags: dict[str, str] = {}

    @property
    def identity(self) -> Sequence[str]:
        """The overrides that an earlier sweep has in common with this one, if this one goes on with it."""
        return self.overrides

    def goes_on_with(self, folders: Sequence[Path]) -> Path | None:
        """The earlier sweep to go on with.

        Args:
            folders: The output folders of sweeps of the same identity, the latest first.

        Raises:
            Refused: The sweep was changed.
        """
        return next(iter(folders), None)

    def plan(self, folder: Path | None) -> Sequence[str]:
        """Describe what would be run, where that follows from results; `done` and `progress` are known then.

        Args:
            folder: Output of the earlier sweep that this one would go on with; None: there is none.

        Returns:
            Lines for a person.
        """
        return ()

    @property
    def most_runs(self) -> int | None:
        """The largest number of runs that are left; None: unknown."""
        return None if self.total is None else (self.total - self.done) * self.runs_each

    @property
    def progress(self) -> str:
        """How far a sweep that goes on is, after `begin`, in words; empty: what is kept says it."""
        return ""

    @property
    def remarks(self) -> Sequence[str]:
        """What to say at the sweep's end, beside its results."""
        return ()

    def begin(self, folder: Path) -> Sequence[Job]:
        """Begin, or go on, in the folder of the sweep's output; return jobs that have ended before."""
        return ()

    @abstractmethod
    def next(self) -> Job | None:
        """The job to start now; None: no other one before more results are known.

        A sweep ends when there is none, and none is under way.
        """

    def epoch(self, job: Job, number: int, metrics: Mapping[str, float]) -> bool:
        """Hear of an epoch, counted from 1, of a job; return whether the job is to stop. It does if `Job.asks`."""
        return False

    def tell(self, job: Job, outcome: Outcome) -> None:
        """Hear what came of a job that was proposed."""
        self.done += 1

    def files(self) -> Mapping[str, bytes | str]:
        """Files for the parent run's artifacts, by name, as the sweep ends, however it does."""
        return {}

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """The sweep has ended, in whatever way."""


class Propose(Protocol):
    """How a proposer is made."""

    def __call__(
        self, settings: Any, overrides: Sequence[str], loader: ConfigLoader, prepare: Callable[..., list[Job]]
    ) -> Proposer:
        """Make one.

        Args:
            settings: The module's ``Settings``, with the values of the config.
            overrides: Of the command line.
            loader: Hydra's, to look at groups of files.
            prepare: Composes and checks jobs: see `jobs.prepare`.

        Raises:
            Refused: A job cannot run.
        """
