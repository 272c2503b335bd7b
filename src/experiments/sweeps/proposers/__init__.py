"""What a sweep runs next: a module each, which ``hydra.sweeper.proposer`` names.

A module has ``Settings``, the other keys of ``hydra.sweeper`` with their defaults, and a function ``propose``, see
`Propose`. A module of a package of one's own is named with it: ``mypackage.mymodule``, with ``trust=[mypackage]``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hydra.core.config_loader import ConfigLoader

from experiments.sweeps.jobs import Job


class Proposer(Protocol):
    """Says what to run next.

    Attributes:
        jobs: Those that it knows before there is any result. They are checked, and their packages and data are loaded
            once for all. There is at least one. A launcher that takes one batch runs them in this order.
        total: Number of jobs in all; None: that depends on their results.
        overrides: Of all jobs, as they were typed, with those of a preset.
        swept: What differs between jobs, by key, as it was typed.
    """

    jobs: Sequence[Job]
    total: int | None
    overrides: Sequence[str]
    swept: Mapping[str, str]

    def next(self) -> Job | None:
        """The job to start now; None: no other one before more results are known.

        A sweep ends when there is none, and none is under way.
        """

    def tell(self, job: Job, objective: float | None) -> None:
        """Take a job's result: what it is ranked by, now or in an earlier sweep; None: it failed."""


class Propose(Protocol):
    """The function ``propose`` of a module of this folder."""

    def __call__(
        self, settings: Any, overrides: Sequence[str], loader: ConfigLoader, prepare: Callable[..., list[Job]]
    ) -> Proposer:
        """Begin a sweep.

        Args:
            settings: An instance of the module's ``Settings``.
            overrides: Of the command line.
            loader: Hydra's config loader, which lists the files of groups.
            prepare: Function that composes and checks jobs: `jobs.prepare` with loader and config already set.

        Raises:
            Refused: They cannot be carried out.
        """
