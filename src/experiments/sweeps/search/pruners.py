"""Which trials a search stops early: Optuna's pruners, with settings.

`conf/hydra/sweeper/pruner` says what they are for. Each class holds the settings of a pruner; its ``build`` makes it.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from pydantic import Field

from experiments.config import Problem, Refused
from experiments.config.schema import Auto, Count, NotNegative, Section, Whole


class Pruner(Section):
    """What the settings of all pruners have.

    Attributes:
        method: Optuna's class.
    """

    method: ClassVar[Callable[..., BasePruner]]

    def build(self, epochs: int) -> BasePruner:
        """The pruner of a search whose longest trials have so many epochs."""
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):  # its version is pinned
            return type(self).method(**self.arguments(epochs))

    def arguments(self, epochs: int) -> dict[str, Any]:
        """What Optuna is given. For it the first epoch is not 0, but 1."""
        given = self.model_dump(exclude={"name"})
        return given | {key: value + 1 for key, value in given.items() if key == "n_warmup_steps"}


class Median(Pruner):
    """Settings of Optuna's ``MedianPruner``."""

    method: ClassVar[Callable[..., BasePruner]] = optuna.pruners.MedianPruner
    name: Literal["median"]
    n_startup_trials: Whole = 5
    n_warmup_steps: Whole = 0
    interval_steps: Count = 1
    n_min_trials: Count = 1


class Percentile(Median):
    """Settings of Optuna's ``PercentilePruner``."""

    method = optuna.pruners.PercentilePruner
    name: Literal["percentile"]  # type: ignore[assignment]
    percentile: Annotated[float, Field(ge=0, le=100)]


class Hyperband(Pruner):
    """Settings of Optuna's ``HyperbandPruner``."""

    method = optuna.pruners.HyperbandPruner
    name: Literal["hyperband"]
    min_resource: Count = 1
    max_resource: Count | Auto = "auto"
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    bootstrap_count: Whole = 0

    def build(self, epochs: int) -> BasePruner:
        """Refuse a most that is below the least."""
        if self.max_resource != "auto" and self.max_resource < self.min_resource:
            what = f"got {self.max_resource}, which is below hydra.sweeper.pruner.min_resource={self.min_resource}"
            raise Refused(Problem("hydra.sweeper.pruner.max_resource", what, "hydra.sweeper.pruner.max_resource=auto"))
        return super().build(epochs)

    def arguments(self, epochs: int) -> dict[str, Any]:
        """The same, with the epochs of the longest trials."""
        given = super().arguments(epochs)
        return given | {"max_resource": max(epochs, self.min_resource)} if self.max_resource == "auto" else given


class SuccessiveHalving(Pruner):
    """Settings of Optuna's ``SuccessiveHalvingPruner``."""

    method = optuna.pruners.SuccessiveHalvingPruner
    name: Literal["successive_halving"]
    min_resource: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    min_early_stopping_rate: Whole = 0
    bootstrap_count: Whole = 0


class Patient(Pruner):
    """Settings of Optuna's ``PatientPruner``."""

    method = partial(optuna.pruners.PatientPruner, None)
    name: Literal["patient"]
    patience: Whole
    min_delta: NotNegative = 0.0


class Threshold(Pruner):
    """Settings of Optuna's ``ThresholdPruner``."""

    method = optuna.pruners.ThresholdPruner
    name: Literal["threshold"]
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: Whole = 0
    interval_steps: Count = 1

    def build(self, epochs: int) -> BasePruner:
        """Refuse bounds that stop no trial, or all."""
        if self.lower is None and self.upper is None:
            what = "has neither a lower nor an upper bound, so that it stops no trial"
            raise Refused(Problem("hydra.sweeper.pruner", what, "hydra.sweeper.pruner.lower=0.5"))
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            what = f"got {self.lower:g}, which is not below hydra.sweeper.pruner.upper={self.upper:g}"
            raise Refused(Problem("hydra.sweeper.pruner.lower", what, "hydra.sweeper.pruner.lower=null"))
        return super().build(epochs)


class Off(Pruner):
    """Settings of Optuna's ``NopPruner``."""

    method = optuna.pruners.NopPruner
    name: Literal["off"]


AnyPruner = Annotated[
    Median | Percentile | Hyperband | SuccessiveHalving | Patient | Threshold | Off, Field(discriminator="name")
]
