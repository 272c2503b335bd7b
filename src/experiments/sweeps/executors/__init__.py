"""Where the jobs of a sweep run: a module each, which ``hydra.launcher.executor`` names.

A module has ``Settings``, the other keys of ``hydra.launcher`` with their defaults, and ``executor``, a function that
returns an `Executor` for these settings and Hydra's launcher. A module of a package of one's own is named with it:
``mypackage.mymodule``, with ``trust=[mypackage]``; ``tests/sweeps/test_seams.py`` has an example.

A job is run by `worker.carry_out`, wherever that is. If the sweep has a parent, the run sends nothing to MLflow itself:
its journal has to be in `Job.folder` on this machine when `Ended` is reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from experiments.config.schema import Count, Section
from experiments.sweeps.jobs import Job, Outcome


class Settings(Section):
    """Keys of ``hydra.launcher`` that all executors have."""

    retries: Annotated[int, Field(ge=0)] = 0
    max_failures: Count | None = None


@dataclass(frozen=True)
class Epoch:
    """A job has trained an epoch: its number, of how many, and the metrics. If `Job.asks`, it waits for an answer."""

    job: Job
    number: int
    of: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """A job has ended.

    Attributes:
        job: Which one.
        seconds: How long it took.
        process: The id of its process on this machine, whose journal is closed if left open; 0: unknown.
        outcome: What came of it.
        reported: Whether the job itself reported its end; it did not if its process was killed, for one.
    """

    job: Job
    seconds: float
    process: int
    outcome: Outcome
    reported: bool = True


class Executor(Protocol):
    """Runs jobs, each as soon as it is given one.

    Attributes:
        size: Number of jobs at a time; 0: not known before `wait_until_ready`.
        threads: Number of processor threads of a job whose config does not say; None: unknown.
    """

    size: int
    threads: int | None

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Begin what takes time, such as imports, and do not wait for it.

        Args:
            jobs: Those that are known, with the packages and data that all of them need.
        """

    def wait_until_ready(self) -> None:
        """Wait until jobs can start.

        Raises:
            Refused: They cannot, as settings of the user are wrong.
        """

    def has_room(self) -> bool:
        """Whether another job can start."""

    def start(self, job: Job, parent: str) -> None:
        """Start a job.

        Args:
            job: Which one.
            parent: What its run names as its parent; empty: it has none.
        """

    def news(self, seconds: float | None) -> list[Epoch | Ended]:
        """Wait for news of the jobs under way.

        Args:
            seconds: How long at most; None: until there are any.
        """

    def answer(self, job: Job, stop: bool) -> None:
        """Say whether a job, which has reported an epoch and waits, is to stop training."""

    def stop(self) -> list[Ended]:
        """End all jobs under way within seconds, whatever they are doing."""

    def close(self) -> None:
        """End what `prepare` has started: the sweep is over, and the command ends without clean-up by Python."""
