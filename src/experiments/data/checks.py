"""Checks raw arrays: types, shapes, lengths, labels."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused

Labels = NDArray[np.int64]
RawArrays = dict[str, NDArray[np.generic]]
CheckedArrays = tuple[NDArray[np.generic], Labels, NDArray[np.generic], Labels]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Makes whole numbers of text.
ENCODE = (
    "classes, y = np.unique(np.concatenate([y_train, y_test]), return_inverse=True); "
    "y_train, y_test = np.split(y, [len(y_train)])"
)
LARGEST = float(np.finfo(np.float32).max)


def check(raw: RawArrays, source: str, scale: float = 1.0) -> CheckedArrays:
    """Check shapes, types, lengths and ranges.

    Args:
        raw: By the names in `ARRAYS`.
        source: Where they come from, for messages.
        scale: What the images will be divided by.

    Returns:
        Images and labels (n,) to train with, and to test with.

    Raises:
        Refused: With all that is wrong.
    """
    columns = {part: _column(raw[f"y_{part}"]) for part in ("train", "test")}
    found: dict[str, list[str]] = {}
    for part, y in columns.items():
        x = raw[f"x_{part}"]
        found[f"x_{part}"] = list(_images(x, scale))
        found[f"y_{part}"] = [*_labels(y, len(x) if x.ndim else 0), *_range(y, len(columns["train"]))]
    if not any(found.values()):
        found = _together(raw, columns)
    if any(found.values()):
        raise Refused([Problem(f"{source}: {name}", what) for name, each in found.items() for what in each])
    return raw["x_train"], columns["train"].astype(np.int64), raw["x_test"], columns["test"].astype(np.int64)


def _column(y: NDArray[np.generic]) -> NDArray[np.generic]:
    """Labels (n,), also of (n, 1); anything else as it is, but with a length."""
    return np.atleast_1d(y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)


def _images(x: NDArray[np.generic], scale: float) -> Iterator[str]:
    if x.ndim not in (2, 3, 4):
        yield f"got shape {x.shape}, expected (n, height, width[, channels]) or (n, features)"
    if x.dtype.kind not in "uifb":
        yield f"got type {x.dtype}, expected numbers"
    elif x.size == 0:
        yield "is empty"
    else:
        low, high = float(x.min()), float(x.max())  # NaN, if one of them is
        if not np.isfinite([low, high]).all():
            yield "holds NaN or infinity"
        elif (largest := max(-low, high)) > LARGEST:
            yield f"holds values of up to {largest:.3g}, but training is done in float32, which ends at {LARGEST:.3g}"
        elif largest / scale > LARGEST:
            yield f"holds values of up to {largest:.3g}, which divided by data.scale={scale:g} are beyond float32"


def _labels(y: NDArray[np.generic], images: int) -> Iterator[str]:
    if y.ndim != 1:
        yield f"got shape {y.shape}, expected (n,); one-hot labels: save y.argmax(axis=1)"
    elif len(y) != images:
        yield f"got {len(y)} labels for {images} images"
    if y.dtype.kind in "US":
        shown = ", ".join(map(str, np.unique(y)[:3]))
        yield f"got text ({shown}, …), expected whole numbers from 0; encode the classes: {ENCODE}"
    elif not _whole(y):
        yield f"got {y.dtype} that are not all whole, expected whole numbers from 0"


def _whole(y: NDArray[np.generic]) -> bool:
    return y.dtype.kind in "uib" or (y.dtype.kind == "f" and bool((np.isfinite(y) & (y == np.floor(y))).all()))


def _range(y: NDArray[np.generic], images: int) -> Iterator[str]:
    if not (y.size and _whole(y)):
        return
    if y.min() < 0:
        yield f"got the label {y.min()}, expected whole numbers from 0"
    if y.max() >= max(images, 1):  # not labels: the model would get an output for each
        yield f"got the label {y.max()} with {max(images, 1)} training images"


def _together(raw: RawArrays, labels: Mapping[str, NDArray[np.generic]]) -> dict[str, list[str]]:
    """What is wrong with arrays that are right each for itself."""
    (y, y_test), (shape, test_shape) = labels.values(), (raw[f"x_{part}"].shape[1:] for part in ("train", "test"))
    found = {}
    if shape != test_shape:
        found["x_test"] = [f"got images of {test_shape}, those of x_train are {shape}"]
    if y.min() == y.max():
        found["y_train"] = ["holds one class only, expected at least two"]
    if y_test.max() > y.max():
        found["y_test"] = [f"has the label {y_test.max()}, y_train ends at {y.max()}"]
    return found


def digest_of(raw: RawArrays) -> str:
    """Sha256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {raw[name].dtype.str} {raw[name].shape};".encode())
        digest.update(np.ascontiguousarray(raw[name]).data)
    return digest.hexdigest()
