"""How a search chooses its trials: Optuna's samplers, with settings.

`conf/hydra/sweeper/sampler` says what they are for. Each class holds the settings of a sampler; its ``build`` makes it,
or raises `Refused` where it cannot choose from the space.
"""

import warnings
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from pydantic import Field

from experiments.config import Problem, Refused
from experiments.config.schema import Section, Share, Whole
from experiments.sweeps.search.space import Dimension, Space

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
    if (count := dimension.count) is None:
        what = f"got {sampler}, but {dimension.key}={dimension.text} has infinitely many values"
        raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=tpe"))
    if count > MOST_VALUES:
        what = f"got {sampler}, which tries all values, but {dimension.key}={dimension.text} has {count:,}"
        raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=tpe"))
    return dimension.values


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Sampler(Section):
    """What the settings of all samplers have.

    Attributes:
        lists_all: It proposes each point of a finite space once.
    """

    lists_all: ClassVar[bool] = False


class Tpe(Sampler):
    """Settings of Optuna's ``TPESampler``."""

    name: Literal["tpe"]
    n_startup_trials: Whole = 10
    n_ei_candidates: Annotated[int, Field(ge=1, le=100_000)] = 24  # more would fill the memory
    multivariate: bool = True
    group: bool = False
    constant_liar: bool = True

    def build(self, space: Space, seed: int) -> Sampling:
        arguments = self.model_dump(exclude={"name"})
        if self.group and not self.multivariate:
            what = "got true, but groups are of keys that are chosen together"
            raise Refused(Problem("hydra.sweeper.sampler.group", what, "hydra.sweeper.sampler.multivariate=true"))
        return _anew(lambda own: _made(optuna.samplers.TPESampler, seed=own, **arguments), seed)


class Random(Sampler):
    """Settings of Optuna's ``RandomSampler``."""

    name: Literal["random"]

    def build(self, space: Space, seed: int) -> Sampling:
        return _anew(lambda own: _made(optuna.samplers.RandomSampler, seed=own), seed)


class Grid(Sampler):
    """Settings of Optuna's ``GridSampler``."""

    name: Literal["grid"]
    lists_all = True

    def build(self, space: Space, seed: int) -> Sampling:
        values = {}
        for dimension in space.all():
            if dimension.branches:
                what = "got grid, which knows no keys that depend on a choice"
                raise Refused(Problem("hydra/sweeper/sampler", what, "hydra/sweeper/sampler=brute_force"))
            values[dimension.name] = _finite(dimension, self.name)
        grid = _made(optuna.samplers.GridSampler, search_space=values, seed=seed)
        return lambda number: grid


class Qmc(Sampler):
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


class NsgaII(Sampler):
    """Settings of Optuna's ``NSGAIISampler``."""

    name: Literal["nsga2"]
    population_size: Annotated[int, Field(ge=2)] = 50
    mutation_prob: Share | None = None
    crossover_prob: Share = 0.9
    swapping_prob: Share = 0.5

    def build(self, space: Space, seed: int) -> Sampling:
        arguments = self.model_dump(exclude={"name"})
        return _anew(lambda own: _made(optuna.samplers.NSGAIISampler, seed=own, **arguments), seed)


class BruteForce(Sampler):
    """Settings of Optuna's ``BruteForceSampler``."""

    name: Literal["brute_force"]
    lists_all = True

    def build(self, space: Space, seed: int) -> Sampling:
        for dimension in space.all():
            _finite(dimension, self.name)
        return _anew(lambda own: _made(optuna.samplers.BruteForceSampler, seed=own), seed)


AnySampler = Annotated[Tpe | Random | Grid | Qmc | NsgaII | BruteForce, Field(discriminator="name")]
