"""Draws a part of a data set that has the class shares of the whole."""

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data.checks import Labels


def stratified(y: Labels, count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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
    if not 0 < count < available:
        raise Refused(
            Problem(
                "data.validation_size",
                f"got {size}, but there are {available} training images",
                "data.validation_size=0.1",
            )
        )
    return count
