"""Checks raw arrays: types, shapes, lengths, labels."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused

Labels = NDArray[np.int64]
RawArrays = dict[str, NDArray[np.generic]]
CheckedArrays = tuple[NDArray[np.generic], Labels, NDArray[np.generic], Labels]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def check(raw: RawArrays, source: str) -> CheckedArrays:
    """Check shapes, types, lengths and ranges.

    Args:
        raw: By the names in `ARRAYS`.
        source: Where they come from, for messages.

    Returns:
        Images and labels (n,) to train with, and to test with.

    Raises:
        Refused: With all that is wrong.
    """
    problems: list[Problem] = []

    def expect(holds: bool, array: str, what: str) -> bool:
        if not holds:
            problems.append(Problem(f"{source}: {array}", what))
        return holds

    labels: dict[str, Labels] = {}
    for part in ("train", "test"):
        x, y = raw[f"x_{part}"], raw[f"y_{part}"]
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        expected = "expected (n, height, width[, channels]) or (n, features)"
        expect(x.ndim in (2, 3, 4), f"x_{part}", f"got shape {x.shape}, {expected}")
        expect(x.size > 0, f"x_{part}", "is empty")
        if expect(x.dtype.kind in "uifb", f"x_{part}", f"got type {x.dtype}, expected numbers") and x.dtype.kind == "f":
            expect(bool(np.isfinite(x).all()), f"x_{part}", "holds NaN or infinity")
        if expect(
            y.ndim == 1, f"y_{part}", f"got shape {y.shape}, expected (n,); one-hot labels: save y.argmax(axis=1)"
        ):
            expect(x.shape[:1] == y.shape, f"y_{part}", f"got {len(y)} labels for {len(x) if x.ndim else 0} images")
        whole = y.dtype.kind in "uib" or (y.dtype.kind == "f" and bool((np.isfinite(y) & (y == np.floor(y))).all()))
        if (
            expect(whole, f"y_{part}", f"got {y.dtype} that are not all whole, expected whole numbers from 0")
            and y.size
        ):
            expect(int(y.min()) >= 0, f"y_{part}", f"got the label {y.min()}, expected whole numbers from 0")
            # More classes than images: not labels. The model would get an output for each.
            top = max(len(raw["y_train"]) if raw["y_train"].ndim else 0, 1) - 1
            expect(int(y.max()) <= top, f"y_{part}", f"got the label {y.max()} with {top + 1} training images")
        labels[part] = y.astype(np.int64) if whole else np.zeros(0, np.int64)
    if not problems:
        (x, y), (x_test, y_test) = ((raw[f"x_{part}"], labels[part]) for part in ("train", "test"))
        fits = x.shape[1:] == x_test.shape[1:]
        expect(fits, "x_test", f"got images of {x_test.shape[1:]}, those of x_train are {x.shape[1:]}")
        expect(bool(y.min() < y.max()), "y_train", "holds one class only, expected at least two")
        expect(bool(y_test.max() <= y.max()), "y_test", f"has the label {y_test.max()}, y_train ends at {y.max()}")
    if problems:
        raise Refused(problems)
    return raw["x_train"], labels["train"], raw["x_test"], labels["test"]


def digest_of(raw: RawArrays) -> str:
    """Sha256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {raw[name].dtype.str} {raw[name].shape};".encode())
        digest.update(np.ascontiguousarray(raw[name]).data)
    return digest.hexdigest()
