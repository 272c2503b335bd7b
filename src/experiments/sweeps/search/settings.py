"""The settings of a search, ``hydra.sweeper``."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from experiments.config.schema import Count, Positive, Section
from experiments.sweeps.search.pruners import AnyPruner
from experiments.sweeps.search.samplers import AnySampler

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _unlike(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"got {seeds}, expected each seed once")
    return seeds


def _one_space(params: Any) -> Any:
    if isinstance(params, list):
        raise ValueError("got several grids, expected one space; hydra/sweeper=grid runs several")
    return params


class Settings(Section):
    """Keys of ``hydra.sweeper``; ``conf/hydra/sweeper/optuna.yaml`` says what they mean."""

    params: Annotated[dict[str, Any] | None, BeforeValidator(_one_space)] = None
    n_trials: Count = 40
    timeout: Positive | None = None
    seed: Seed = 0
    seeds: Annotated[list[Seed], AfterValidator(_unlike)] = Field(default_factory=list)
    seeds_for: Literal["better_half", "all"] = "better_half"
    reuse: bool = True
    count_failed: bool = True
    constraints: dict[str, float] | None = None
    sampler: AnySampler
    pruner: AnyPruner
