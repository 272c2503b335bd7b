"""Which configs of a ranking are significantly worse than the best.

The test is Tukey's (1949), for unequal numbers of seeds as by Kramer (1956), with the seeds as blocks where configs
share them. The textbook assumes one variance for all configs, which trained networks do not have, so two points differ.
A config whose runs scatter more than the average is judged by its own variance. And a config that scatters wildly (a
learning rate that is too high, a run that collapsed) does not count for the average, as it would hide all differences
between the others. `scripts/false_claims.py` measures the error rate and the power.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05  # the share of rankings of equal configs in which, at most, any config is called worse than the best
WILD = 60  # a variance of more than this times the median of all configs does not count for the average
PRECISION = float(np.finfo(np.float32).eps)  # of recorded values, relative: a smaller spread is rounding
TEST = (
    "Tukey-Kramer test (Tukey 1949, Kramer 1956){blocks}, modified: configs that scatter more than the average are "
    "judged by their own variance; error rate {alpha:g} % for all configs together"
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """The result of the test.

    Attributes:
        indistinguishable_from_best: Of each config, whether it does not differ significantly from the best of those
            with several seeds; None for a single seed, which is not tested.
        method: The test, its error rate, and the smallest difference that it could have detected; empty where fewer
            than two configs have several seeds, so that nothing was tested.
    """

    indistinguishable_from_best: Sequence[bool | None]
    method: str


def judge(ranked: Sequence[Mapping[str, float]], lower_is_better: bool) -> Verdict:
    """Test which configs are worse than the best.

    Args:
        ranked: Of each config, the objective by seed, finite; the config with the best mean first.
        lower_is_better: Whether the objective is to be made small.
    """
    verdicts = [True if len(values) > 1 else None for values in ranked]
    tested = [place for place, values in enumerate(ranked) if len(values) > 1]
    if len(tested) < 2:
        return Verdict(verdicts, "")
    seeds = dict.fromkeys(seed for place in tested for seed in ranked[place])
    table = np.array([[ranked[place].get(seed, math.nan) for seed in seeds] for place in tested])
    scale = float(np.nanmax(np.abs(table))) or 1.0
    table /= scale
    table -= np.nanmean(table)
    steady = _steady(table)
    table, in_blocks = _in_blocks(table, steady)
    behind, detectable = _differences(-table if lower_is_better else table, steady, in_blocks)
    for place, is_equal in zip(tested, (behind <= detectable).tolist(), strict=True):
        verdicts[place] = is_equal
    test = TEST.format(blocks=" with seeds as blocks" if in_blocks else "", alpha=100 * ALPHA)
    return Verdict(verdicts, f"{test}; {_sensitivity(scale * detectable[1:])}")


def _steady(table: Array) -> NDArray[np.bool_]:
    """Whether each config counts for the average variance. The variance of two values says too little to leave it out.

    Args:
        table: (configs, seeds); NaN where there is no run.
    """
    if len(table) < 3:
        return np.ones(len(table), bool)
    variances = np.nanvar(table, axis=1, ddof=1)
    few = np.count_nonzero(~np.isnan(table), axis=1) < 3
    steady: NDArray[np.bool_] = few | (variances <= WILD * np.median(variances))
    return steady


def _in_blocks(table: Array, steady: NDArray[np.bool_]) -> tuple[Array, bool]:
    """The runs that are compared, and whether their seeds are blocks.

    They are unless that would leave fewer than half of the degrees of freedom. A seed that one config has alone says
    nothing of differences within blocks, so it is left out.
    """
    present = ~np.isnan(table)
    shared = np.count_nonzero(present[steady], axis=0) > 1
    runs = present[:, shared]
    if runs.sum(axis=1).min() < 2:
        return table, False
    blocks = runs[steady].astype(float)
    counts = blocks.sum(axis=1, keepdims=True)
    joined = np.diag(blocks.sum(axis=0)) - blocks.T @ (blocks / counts)
    rank = np.linalg.matrix_rank(joined, tol=1e-9, hermitian=True)
    if rank < len(joined) - 1:  # some configs share seeds among themselves only
        return table, False
    without = present[steady].sum() - len(blocks)
    return (table[:, shared], True) if 2 * (blocks.sum() - len(blocks) - rank) >= without else (table, False)


def _differences(table: Array, steady: NDArray[np.bool_], in_blocks: bool) -> tuple[Array, Array]:
    """How far each config is behind the first, and the difference that would be significant.

    Effects of configs and seeds are fitted by least squares to the runs of steady configs. Where no run is missing, a
    difference is that of two means, and the degrees of freedom of one config are (seeds - 1)(configs - 1) / configs.

    Args:
        table: (configs, seeds); the greater the better; NaN where there is no run.
        steady: (configs,).
        in_blocks: Whether a seed has an effect that is the same for all configs.
    """
    present = ~np.isnan(table)
    config, seed = np.nonzero(present)
    runs, counts, counted = table[present], present.sum(axis=1), steady[config]
    blocks = table.shape[1] if in_blocks else 0
    shares = (present / counts[:, None])[:, :blocks]  # of a config's runs, by seed
    design = np.eye(table.shape[1], blocks)[seed] - shares[config]  # (runs, seeds)
    inverse = np.linalg.pinv(design[counted].T @ design[counted], rcond=1e-9, hermitian=True)
    to_effects = inverse @ (design * counted[:, None]).T  # (seeds, runs)

    means = np.bincount(config, runs) / counts
    residuals = runs - means[config] - design @ (to_effects @ runs)
    freedom = np.bincount(config, 1 - 1 / counts[config] - counted * (design @ inverse * design).sum(axis=1))
    squares = np.bincount(config, residuals**2)
    total = round(float(freedom[steady].sum()))
    own = np.divide(squares, freedom, out=np.zeros(len(table)), where=freedom > 1e-6)
    variances = np.maximum(own, max(float(squares[steady].sum()) / total, PRECISION**2))[config]

    weights = (config == 0) / counts[0] - shares[0] @ to_effects
    behind, errors = np.zeros(len(table)), np.zeros(len(table))
    for other in range(1, len(table)):
        contrast = weights - ((config == other) / counts[other] - shares[other] @ to_effects)
        behind[other] = contrast @ runs
        errors[other] = math.sqrt(contrast**2 @ variances / 2)
    if total < 2 and variances.max() <= PRECISION**2:  # two configs, two seeds: equal differences may be chance
        errors[1:] = math.inf
    return behind, _critical(len(table), total) * errors


@cache
def _critical(configs: int, freedom: int) -> float:
    """The value that the studentized range of so many means exceeds with probability `ALPHA`."""
    from scipy.stats import studentized_range  # takes a second to import

    return float(studentized_range.ppf(1 - ALPHA, configs, freedom))


def _sensitivity(detectable: Array) -> str:
    """In words, the smallest difference that would have been significant."""
    least, most = float(detectable.min()), float(detectable.max())
    if math.isinf(least):
        return "a difference that is the same with both of two seeds does not count, as that may be chance"
    more = "" if most < 1.2 * least else f" ({most:.2g} for the config that scatters most)"
    return f"a difference below {least:.2g}{more} would not have been detected"
