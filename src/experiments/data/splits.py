"""Draws a part of a data set that has the class shares of the whole."""

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data


def stratified(y: NDArray[np.int64], count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw `count` indices with the class shares of `y` (each class within one of its share); both parts in order.

    Every class gives its share rounded down; the largest remainders give one more. (scikit-learn's splitter does the
    same after seconds of imports.)
    """
    count = min(count, len(y))
    sizes = np.bincount(y)
    drawn, remainders = np.divmod(count * sizes, len(y))
    drawn[np.argsort(-remainders, kind="stable")[: count - drawn.sum()]] += 1
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    rank = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = rank < drawn[y[by_class]]
    return np.sort(by_class[chosen]), np.sort(by_class[~chosen])


def split_sizes(config: Data, train: int, test: int) -> tuple[int, int, int]:
    """How many images remain to train on, to validate with and to test with, of all that there are.

    Raises:
        Refused: As `validation_count`.
    """
    if config.limit:
        train, test = min(train, config.limit), min(test, config.limit)
    held_out = validation_count(config, train) if config.validation_size else 0
    return train - held_out, held_out, test


def validation_count(config: Data, available: int) -> int:
    """How many of the training images are held out.

    Raises:
        Refused: All of them, or none.
    """
    size = config.validation_size
    count = int(size) if size >= 1 else round(size * available)
    if 0 < count < available:
        return count
    kept = f", as data.limit={config.limit} keeps no more" if available == config.limit else ""
    held_out = "all would be held out, and none left to train on" if count else "none would be held out"
    works = 0.2 if available > 2 else 0.5 if available == 2 else 0
    there = f"there are {available} training images" if available > 1 else "there is 1 training image"
    what = f"got {size}, but {there}{kept}: {held_out}"
    raise Refused(Problem("data.validation_size", what, f"data.validation_size={works}"))
