"""Checks raw arrays: types, shapes, values; the targets are checked by their task."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.task import Task, Wrong

Images = NDArray[np.float32]
RawArrays = dict[str, NDArray[np.generic]]
Targets = NDArray[Any]
CheckedArrays = tuple[NDArray[np.generic], Targets, NDArray[np.generic], Targets]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# What to do before the arrays are saved: lines of Python, in which X and Y are the arrays of a part, such as x_train.
ROWS = "save each input as a row: X = X.reshape(len(X), -1)"
REAL = "save how large they are: X = np.abs(X)"
NUMBERS = "if they stand for numbers: X = X.astype(np.float32)"
FINITE = "leave these out: keep = np.isfinite(X).reshape(len(X), -1).all(axis=1); X, Y = X[keep], Y[keep]"
NO_NAN = "put 0 in their place: X = np.nan_to_num(X, posinf=0, neginf=0)"
HOLD_OUT = (
    "hold out a fifth of the training set: test = np.arange(len(y_train)) % 5 == 4; x_train, y_train, x_test, y_test "
    "= x_train[~test], y_train[~test], x_train[test], y_train[test]"
)
LARGEST = float(np.finfo(np.float32).max)


class Outline(NamedTuple):
    """A data set: the sha256 of its arrays, and how many images there are to train and to test with."""

    digest: str
    train: int
    test: int


def check(raw: RawArrays, source: str, scale: float, task: Task) -> CheckedArrays:
    """Check shapes, types, lengths and ranges.

    Args:
        raw: By the names in `ARRAYS`.
        source: Where they come from, for messages.
        scale: What the images will be divided by.
        task: What the targets are.

    Returns:
        Images and targets (n,) to train with, and to test with.

    Raises:
        Refused: With all that is wrong.
    """
    columns = {part: _column(raw[f"y_{part}"]) for part in ("train", "test")}
    training = len(raw["x_train"]) if raw["x_train"].ndim else 0
    found: dict[str, list[Wrong]] = {}
    for part, y in columns.items():
        x = raw[f"x_{part}"]
        found[f"x_{part}"] = list(wrong_inputs(x, scale, HOLD_OUT if part == "test" and training else ""))
        found[f"y_{part}"] = list(task.problems(y, len(x) if x.ndim else None, training))
    if not any(found.values()):
        found = {**_together(raw), **task.disagreements(*columns.values())}
    if problems := described(source, found):
        raise Refused(problems)
    return raw["x_train"], task.clean(columns["train"]), raw["x_test"], task.clean(columns["test"])


def described(source: str, found: Mapping[str, Sequence[Wrong]]) -> list[Problem]:
    """Name the array of each thing that is wrong; what is to be done about several is said once.

    Args:
        source: Where the arrays come from.
        found: By the names of the arrays.
    """
    problems, said = [], set[str]()
    for name, each in found.items():
        for wrong in each:
            mend = wrong.mend.replace("X", f"x{name[1:]}").replace("Y", f"y{name[1:]}")
            what = wrong.what if mend in said or not mend else f"{wrong.what}; {mend}"
            problems.append(Problem(f"{source}: {name}", what))
            said.add(mend)
    return problems


def _column(y: NDArray[np.generic]) -> NDArray[np.generic]:
    """Labels (n,), also of (n, 1); anything else as it is."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def wrong_inputs(x: NDArray[np.generic], scale: float, if_none: str = "") -> Iterator[Wrong]:
    """Say what is wrong with inputs; `if_none`: what to do where there are none."""
    if x.ndim not in (2, 3, 4):
        what = f"got shape {x.shape}, expected (n, height, width[, channels]) or (n, features)"
        yield Wrong(what, ROWS if x.ndim and len(x) else "")
    if not x.ndim:
        return
    if x.dtype.kind not in "uifb":
        mend = {"c": REAL, "V": ""}.get(x.dtype.kind, NUMBERS)
        yield Wrong(f"got type {x.dtype}, expected {'real ' * (x.dtype.kind == 'c')}numbers", mend)
    elif x.size == 0:
        yield Wrong(f"is empty: got shape {x.shape}", "" if len(x) else if_none)
    else:
        yield from _values(x, scale)


def _values(x: NDArray[np.generic], scale: float) -> Iterator[Wrong]:
    low, high = x.min(), x.max()  # NaN, if one of them is
    if not (np.isfinite(low) and np.isfinite(high)):
        wrong = len(x) - int(np.isfinite(x).reshape(len(x), -1).all(axis=1).sum())
        yield Wrong(f"holds NaN or infinity, in {wrong:,} of {len(x):,}", FINITE if wrong < len(x) else NO_NAN)
    elif (largest := max(-float(low), float(high))) > LARGEST:  # infinity, of a long double
        what = f"holds values of up to {largest:.3g}, but training is done in float32, which ends at {LARGEST:.3g}"
        yield Wrong(what)
    elif largest / scale > LARGEST:
        yield Wrong(f"holds values of up to {largest:.3g}, which divided by data.scale={scale:g} are beyond float32")


def _together(raw: RawArrays) -> dict[str, list[Wrong]]:
    """What is wrong with images that are right each for itself."""
    shape, test_shape = (raw[f"x_{part}"].shape[1:] for part in ("train", "test"))
    if shape == test_shape:
        return {}
    return {"x_test": [Wrong(f"got images of {test_shape}, those of x_train are {shape}: save all in one size")]}


def digest_of(raw: RawArrays) -> str:
    """Sha256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {raw[name].dtype.str} {raw[name].shape};".encode())
        digest.update(np.ascontiguousarray(raw[name]).data)
    return digest.hexdigest()
