"""The data sets that scikit-learn carries: they need no network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.config.schema import Data
from experiments.data.checks import Outline, RawArrays

NAMES = ("digits", "diabetes")
# What is known without importing scikit-learn, which takes two seconds.
OUTLINES = {"digits": Outline("1ea06ec674c4b7e50ff9c2a685de43a14a337dcdcabc683d89544406ad7e6a1b", 1438, 359)}


def locate(config: Data) -> Path | None:
    """It is always here."""
    return None


def read(config: Data, file: Path | None, trust: Sequence[str]) -> tuple[RawArrays, str]:
    """Load the arrays; every fifth input is one to test with."""
    from sklearn.datasets import load_diabetes, load_digits

    bunch = load_digits() if config.name == "digits" else load_diabetes()
    x, y = bunch.images if config.name == "digits" else bunch.data, bunch.target
    test = np.arange(len(y)) % 5 == 4
    arrays = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    return arrays, f"{config.name} of scikit-learn"
