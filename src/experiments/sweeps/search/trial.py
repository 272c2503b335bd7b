"""A trial under way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.sweeps.jobs import Job


@dataclass
class Trial:
    """A trial under way.

    Attributes:
        number: Of the trial.
        jobs: One for each seed.
        values: The results of the seeds so far: of each, the values of the objectives.
        repeats: The run of an earlier sweep, or trial, that answers for it; empty: it was run.
        is_busy: Whether its next job was proposed.
    """

    number: int
    jobs: Sequence[Job]
    values: list[list[float]] = field(default_factory=list)
    repeats: str = ""
    is_busy: bool = False

    @property
    def next_job(self) -> Job:
        """The job of the next seed."""
        return self.jobs[len(self.values)]
