"""Which configs are significantly worse than the best: held against other code, symmetries, and simulated sweeps."""

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from experiments.ranking.significance import judge

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from false_claims import ASKED, NULLS, false_claims, power

Table = NDArray[np.float64]


@st.composite
def tables(draw: st.DrawFn, missing: bool = True) -> Table:
    """Sweeps (configs, seeds) whose differences are of the size of their noise; NaN where a run has no result."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(2, 6)), draw(st.integers(2, 5))
    spread = random.lognormal(0, 1, (shape[0], 1)) * draw(st.sampled_from([0.1, 1, 3]))
    table = random.normal(size=(shape[0], 1)) + random.normal(size=shape[1]) + spread * random.normal(size=shape)
    if missing:
        table[random.random(shape) < draw(st.sampled_from([0, 0.1, 0.4]))] = np.nan
        assume((~np.isnan(table)).any(axis=1).all())
    return table[np.argsort(-np.nanmean(table, axis=1))]


def by_seed(table: Table) -> list[dict[str, float]]:
    return [{str(seed): value for seed, value in enumerate(row) if not np.isnan(value)} for row in table.tolist()]


def marks(table: Table) -> Sequence[bool | None]:
    return judge(by_seed(table), lower_is_better=False).indistinguishable_from_best


def as_written(table: Table, in_blocks: bool) -> list[bool]:
    """The rule for sweeps without missing runs, as in docs/results.md, one step after the other."""
    configs, seeds = table.shape
    spread = table.var(axis=1, ddof=1)
    kept = spread <= 60 * np.median(spread) if configs > 2 and seeds > 2 else np.ones(configs, dtype=bool)
    count = kept.sum()
    effects = table[kept].mean(axis=0) if in_blocks else np.zeros(seeds)
    residuals = table - table.mean(axis=1, keepdims=True) - effects + effects.mean()
    freedom = (seeds - 1) * (count - 1) / count if in_blocks else seeds - 1
    own = (residuals**2).sum(axis=1) / np.where(kept, freedom, seeds - 1)
    variance = np.maximum(own, own[kept].mean())
    q = (table[0].mean() - table.mean(axis=1)) / np.sqrt((variance[0] + variance) / 2 / seeds)
    return (stats.studentized_range.sf(q, configs, count * freedom) >= 0.05).tolist()


@given(tables(missing=False))
@settings(max_examples=30, deadline=None)
def test_shared_seeds_are_judged_as_written(table: Table) -> None:
    assert marks(table) == as_written(table, in_blocks=True)


@given(tables(missing=False))
@settings(max_examples=25, deadline=None)
def test_other_seeds_are_judged_as_written(table: Table) -> None:
    own = [{f"{place}.{seed}": value for seed, value in values.items()} for place, values in enumerate(by_seed(table))]
    assert judge(own, lower_is_better=False).indistinguishable_from_best == as_written(table, in_blocks=False)


@given(tables(missing=False))
@settings(max_examples=30, deadline=None)
def test_two_configs_are_compared_by_the_paired_t_test(table: Table) -> None:
    paired = stats.ttest_rel(table[0], table[1]).pvalue
    assert marks(table[:2]) == [True, paired >= 0.05]


def test_missing_runs_are_fitted_by_least_squares() -> None:
    """The same differences and standard errors as by a regression on indicators of configs and seeds."""
    random = np.random.default_rng(0)
    for _ in range(20):
        table = random.normal(size=(4, 1)) + random.normal(size=5) + 0.4 * random.normal(size=(4, 5))
        table[[0, 1, 3], [2, 0, 4]] = np.nan
        table = table[np.argsort(-np.nanmean(table, axis=1))]
        config, seed = np.nonzero(~np.isnan(table))
        design = np.hstack([np.eye(4)[config], np.eye(5)[seed][:, 1:]])
        runs = table[config, seed]
        fitted, *_ = np.linalg.lstsq(design, runs)
        inverse = np.linalg.inv(design.T @ design)
        squares = (runs - design @ fitted) ** 2
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
        own = np.array([squares[config == i].sum() / (1 - leverage)[config == i].sum() for i in range(4)])
        variance = np.maximum(own, squares.sum() / (17 - 8))[config]
        weights = (inverse @ design.T)[:4]
        expected = [True]
        for other in range(1, 4):
            contrast = weights[0] - weights[other]
            q = contrast @ runs / np.sqrt(contrast**2 @ variance / 2)
            expected.append(bool(stats.studentized_range.sf(q, 4, 9) >= 0.05))
        assert marks(table) == expected


@given(tables(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_configs_and_seeds_does_not_matter(table: Table, random: Random) -> None:
    seeds = list(range(table.shape[1]))
    random.shuffle(seeds)
    first = next(place for place, row in enumerate(by_seed(table)) if len(row) > 1 or place == len(table) - 1)
    others = [place for place in range(len(table)) if place > first]
    random.shuffle(others)
    order = [*range(first + 1), *others]
    assert marks(table[order][:, seeds]) == [marks(table)[place] for place in order]


@given(tables(), st.sampled_from([1e-9, 0.01, 7.0, 1e6]), st.sampled_from([-3.0, 0.0, 0.5, 20.0]))
@settings(max_examples=30, deadline=None)
def test_the_unit_does_not_matter(table: Table, scale: float, shift: float) -> None:
    assert marks((table + shift) * scale) == marks(table)


@given(tables())
@settings(max_examples=25, deadline=None)
def test_the_direction_does_not_matter(table: Table) -> None:
    assert judge(by_seed(-table), lower_is_better=True).indistinguishable_from_best == marks(table)


@pytest.mark.parametrize(
    ("best", "other", "is_equal"),
    [
        ([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], False),  # deterministic
        ([0.9, 0.7, 0.8], [0.8, 0.6, 0.7], False),  # the same difference with all seeds
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], True),
        ([0.9 + 1e-8, 0.9, 0.9], [0.9, 0.9, 0.9], True),  # rounding
        ([0.9, 0.7], [0.8, 0.6], True),  # with two seeds, on a small validation set, often chance
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], True),
        ([1e38, 1.1e38, 0.9e38], [1e30, 1.1e30, 0.9e30], False),
    ],
)
def test_differences_without_spread(best: list[float], other: list[float], is_equal: bool) -> None:
    assert marks(np.array([best, other])) == [True, is_equal]


def test_a_wild_config_hides_no_difference_between_others() -> None:
    steady = [[0.95, 0.951, 0.952], [0.93, 0.931, 0.933], [0.929, 0.931, 0.931]]
    assert marks(np.array([*steady, [0.1, 0.9, 0.4]]))[:3] == [True, False, False]


@pytest.mark.parametrize("others", [1, 2, 19])
def test_configs_with_a_single_seed_change_nothing(others: int) -> None:
    several = [{"0": 0.9, "1": 0.91}, {"0": 0.8, "1": 0.82}, {"0": 0.5, "1": 0.49}]
    single = [{"0": 0.4}] * others
    found, alone = judge([*several, *single], False), judge(several, False)
    assert found.indistinguishable_from_best == [*alone.indistinguishable_from_best, *[None] * others]
    assert found.method == alone.method


def test_very_unequal_numbers_of_seeds() -> None:
    many = {str(seed): 0.9 + 0.001 * (seed % 3) for seed in range(50)}
    near, far = {"0": 0.899, "60": 0.9}, {"70": 0.5, "80": 0.51}
    assert judge([{"0": 0.99}, many, near, far], False).indistinguishable_from_best == [None, True, True, False]
    assert judge([{"0": 0.99}, many, {"3": 0.1}], False).indistinguishable_from_best == [None, True, None]
    assert judge([{"0": 0.99}], False).indistinguishable_from_best == [None]
    assert judge([], False).indistinguishable_from_best == []


def test_the_method_names_the_difference_that_would_have_been_seen() -> None:
    """A config just behind the best by more than that is worse, and by less is not."""
    best, other = np.array([0.95, 0.951, 0.953]), np.array([0.9502, 0.9505, 0.953])
    q = stats.studentized_range.ppf(0.95, 2, 2)
    needed = q * (best - other).std(ddof=1) / np.sqrt(2) / np.sqrt(3)
    method = judge(by_seed(np.array([best, other])), False).method
    assert f"a difference below {needed:.2g} would not have been detected" in method
    for factor, is_equal in ((0.99, True), (1.01, False)):
        behind = other - other.mean() + best.mean() - factor * needed
        assert marks(np.array([best, behind])) == [True, is_equal]


@pytest.mark.parametrize("kind", NULLS)
@pytest.mark.parametrize("shared_seeds", [True, False])
def test_equal_configs_are_rarely_called_worse(kind: str, shared_seeds: bool) -> None:
    """As scripts/false_claims.py, with fewer sweeps: the accepted rate, and three standard errors."""
    accepted, random = NULLS[kind][1], np.random.default_rng(1)
    for configs, seeds in ((2, 3), (6, 3), (9, 5)):
        rate = false_claims(random, kind, 100, configs, seeds, shared_seeds)
        assert rate <= accepted + 3 * (accepted * (1 - accepted) / 100) ** 0.5


@pytest.mark.parametrize(("sweep", "asked"), ASKED.items(), ids=str)
def test_a_better_config_is_found(sweep: tuple[str, int, int], asked: float) -> None:
    kind, configs, seeds = sweep
    found = power(np.random.default_rng(2), kind, 100, configs, seeds, better=0.5, shared_seeds=True)
    assert found >= asked - 3 * (asked * (1 - asked) / 100) ** 0.5
