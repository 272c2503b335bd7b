"""How a search chooses its trials, and which of them it stops early: Optuna's samplers and pruners, with settings.

``conf/hydra/sweeper/sampler`` and ``conf/hydra/sweeper/pruner`` say what they are for. Each class holds the settings of
a method; its ``build`` makes the method, or raises `Refused` where it cannot choose from the space.
"""

import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from pydantic import Field

from experiments.config import Problem, Refused
from experiments.config.schema import Auto, Count, NotNegative, Section, Share
from experiments.sweeps.search.space import Dimension, Space

Whole = Annotated[int, Field(ge=0)]
MOST_VALUES = 10_000  # of a key, for samplers that list them all
Sampling = Callable[[int], BaseSampler]
"""Gives the sampler that chooses the trial of a number."""


M = TypeVar("M")


def _made(method: Callable[..., M], **arguments: Any) -> M:
    """A method of Optuna's, without the warning that it is experimental: its version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return method(**arguments)


def _anew(make: Callable[[int], BaseSampler], seed: int) -> Sampling:
    """A sampler of its own for each trial, so that a resumed search chooses as one that was not interrupted."""
    return lambda number: make(_seed_of(seed, number))


def _finite(dimension: Dimension, sampler: str) -> list[Any]:
    """All values of a dimension; a sampler that needs them is refused where there are infinitely many."""
    if (values := dimension.values) is None:
        what = f"got {sampler}, but {dimension.key}={dimension.text} has infinitely many values"
        raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=tpe"))
    if len(values) > MOST_VALUES:
        what = f"got {sampler}, which tries all values, but {dimension.key}={dimension.text} has {len(values):,}"
        raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=tpe"))
    return list(values)


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Tpe(Section):
    """Settings of Optuna's ``TPESampler``."""

    name: Literal["tpe"]
    n_startup_trials: Whole = 10
    n_ei_candidates: Count = 24
    multivariate: bool = True
    group: bool = False
    constant_liar: bool = True

    def build(self, space: Space, seed: int) -> Sampling:
        arguments = self.model_dump(exclude={"name"})
        return _anew(lambda own: _made(optuna.samplers.TPESampler, seed=own, **arguments), seed)


class Random(Section):
    """Settings of Optuna's ``RandomSampler``."""

    name: Literal["random"]

    def build(self, space: Space, seed: int) -> Sampling:
        return _anew(lambda own: _made(optuna.samplers.RandomSampler, seed=own), seed)


class Grid(Section):
    """Settings of Optuna's ``GridSampler``."""

    name: Literal["grid"]

    def build(self, space: Space, seed: int) -> Sampling:
        values = {}
        for dimension in space.all():
            if dimension.branches:
                what = "got grid, which knows no keys that depend on a choice"
                raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=brute_force"))
            values[dimension.name] = _finite(dimension, self.name)
        grid = _made(optuna.samplers.GridSampler, search_space=values, seed=seed)
        return lambda number: grid


class Qmc(Section):
    """Settings of Optuna's ``QMCSampler``."""

    name: Literal["qmc"]
    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True

    def build(self, space: Space, seed: int) -> Sampling:
        quiet = {"warn_asynchronous_seeding": False, "warn_independent_sampling": False}

        def make(number: int) -> BaseSampler:
            others = optuna.samplers.RandomSampler(_seed_of(seed, number))  # of what is not in the sequence
            arguments = {**self.model_dump(exclude={"name"}), **quiet, "independent_sampler": others}
            return _made(optuna.samplers.QMCSampler, seed=seed, **arguments)

        return make


class NsgaII(Section):
    """Settings of Optuna's ``NSGAIISampler``."""

    name: Literal["nsga2"]
    population_size: Annotated[int, Field(ge=2)] = 50
    mutation_prob: Share | None = None
    crossover_prob: Share = 0.9
    swapping_prob: Share = 0.5

    def build(self, space: Space, seed: int) -> Sampling:
        arguments = self.model_dump(exclude={"name"})
        return _anew(lambda own: _made(optuna.samplers.NSGAIISampler, seed=own, **arguments), seed)


class BruteForce(Section):
    """Settings of Optuna's ``BruteForceSampler``."""

    name: Literal["brute_force"]

    def build(self, space: Space, seed: int) -> Sampling:
        for dimension in space.all():
            _finite(dimension, self.name)
        return _anew(lambda own: _made(optuna.samplers.BruteForceSampler, seed=own), seed)


AnySampler = Annotated[Tpe | Random | Grid | Qmc | NsgaII | BruteForce, Field(discriminator="name")]


class Median(Section):
    """Settings of Optuna's ``MedianPruner``."""

    name: Literal["median"]
    n_startup_trials: Whole = 5
    n_warmup_steps: Whole = 0
    interval_steps: Count = 1
    n_min_trials: Count = 1

    def build(self, epochs: int) -> BasePruner:
        return _made(optuna.pruners.MedianPruner, **self.model_dump(exclude={"name"}))


class Percentile(Median):
    """Settings of Optuna's ``PercentilePruner``."""

    name: Literal["percentile"]  # type: ignore[assignment]
    percentile: Annotated[float, Field(ge=0, le=100)]

    def build(self, epochs: int) -> BasePruner:
        return _made(optuna.pruners.PercentilePruner, **self.model_dump(exclude={"name"}))


class Hyperband(Section):
    """Settings of Optuna's ``HyperbandPruner``."""

    name: Literal["hyperband"]
    min_resource: Count = 1
    max_resource: Count | Auto = "auto"
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    bootstrap_count: Whole = 0

    def build(self, epochs: int) -> BasePruner:
        arguments = self.model_dump(exclude={"name"})
        if self.max_resource == "auto":
            arguments["max_resource"] = max(epochs, self.min_resource)
        return _made(optuna.pruners.HyperbandPruner, **arguments)


class SuccessiveHalving(Section):
    """Settings of Optuna's ``SuccessiveHalvingPruner``."""

    name: Literal["successive_halving"]
    min_resource: Count = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    min_early_stopping_rate: Whole = 0
    bootstrap_count: Whole = 0

    def build(self, epochs: int) -> BasePruner:
        return _made(optuna.pruners.SuccessiveHalvingPruner, **self.model_dump(exclude={"name"}))


class Patient(Section):
    """Settings of Optuna's ``PatientPruner``."""

    name: Literal["patient"]
    patience: Whole
    min_delta: NotNegative = 0.0

    def build(self, epochs: int) -> BasePruner:
        return _made(optuna.pruners.PatientPruner, wrapped_pruner=None, **self.model_dump(exclude={"name"}))


class Threshold(Section):
    """Settings of Optuna's ``ThresholdPruner``."""

    name: Literal["threshold"]
    lower: float | None = None
    upper: float | None = None
    n_warmup_steps: Whole = 0
    interval_steps: Count = 1

    def build(self, epochs: int) -> BasePruner:
        if self.lower is None and self.upper is None:
            what = "has neither a lower nor an upper bound, so that it stops no trial"
            raise Refused(Problem("hydra.sweeper.pruner", what, "hydra.sweeper.pruner.lower=0.5"))
        return _made(optuna.pruners.ThresholdPruner, **self.model_dump(exclude={"name"}))


class Off(Section):
    """Settings of Optuna's ``NopPruner``."""

    name: Literal["off"]

    def build(self, epochs: int) -> BasePruner:
        return optuna.pruners.NopPruner()


AnyPruner = Annotated[
    Median | Percentile | Hyperband | SuccessiveHalving | Patient | Threshold | Off, Field(discriminator="name")
]
