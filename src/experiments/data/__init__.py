"""Verified arrays, scaled and split. A new data set enters in `sources`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import Data
from experiments.data.checks import Labels
from experiments.data.sources import Outline, outline, read
from experiments.data.splits import split_sizes, stratified, validation_count

__all__ = ["Dataset", "Images", "Labels", "Split", "load", "outlines", "preload"]

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) or features (n, features), scaled, and their labels (n,)."""

    x: Images
    y: Labels

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A data set, split and checked. `digest` is the sha256 of the arrays before splitting and scaling."""

    name: str
    digest: str
    source: str
    classes: int
    train: Split
    validation: Split | None
    test: Split

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of images to train on, to validate with and to test with."""
        return len(self.train), len(self.validation or ()), len(self.test)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return self.train.x.shape[1:]


PRELOADED: dict[Data, Dataset] = {}


def load(config: Data, seed: int) -> Dataset:
    """Load, check, scale and split a data set.

    Raises:
        Refused: The data set is not to be had, or its arrays are damaged or do not fit each other.
    """
    everything = _everything(config)
    whole = PRELOADED.get(everything) or _load_whole(everything)
    train, test, validation = whole.train, whole.test, None
    if config.limit:
        train, test = (_take(part, stratified(part.y, config.limit, seed)[0]) for part in (train, test))
    if config.validation_size:
        held_out, rest = stratified(train.y, validation_count(config, len(train)), seed)
        train, validation = _take(train, rest), _take(train, held_out)
    return replace(whole, train=train, validation=validation, test=test)


def outlines(configs: Iterable[Data]) -> dict[Data, tuple[str, tuple[int, int, int]]]:
    """The digest and the sizes of data sets, as `load` would split them. Each is read, and checked, once.

    Raises:
        Refused: As `load`.
    """
    found: dict[Data, Outline] = {}
    split = {}
    for config in configs:
        if (everything := _everything(config)) not in found:
            found[everything] = outline(everything)
        digest, train, test = found[everything]
        split[config] = digest, split_sizes(config, train, test)
    return split


def preload(config: Data) -> None:
    """Load a data set for all later `load` calls, also those of processes that are forked from this one."""
    everything = _everything(config)
    if everything not in PRELOADED:
        PRELOADED[everything] = _load_whole(everything)


def _everything(config: Data) -> Data:
    return config.model_copy(update={"limit": None, "validation_size": 0})


def _load_whole(config: Data) -> Dataset:
    (x_train, y_train, x_test, y_test), found, source = read(config)
    train, test = _prepare(x_train, y_train, config.scale), _prepare(x_test, y_test, config.scale)
    return Dataset(config.name, found, source, int(y_train.max()) + 1, train, None, test)


def _prepare(x: NDArray[np.generic], y: Labels, scale: float) -> Split:
    images = np.divide(x, np.float32(scale), dtype=np.float32, casting="unsafe")
    return Split(images[..., np.newaxis] if images.ndim == 3 else images, y)


def _take(split: Split, indices: NDArray[np.intp]) -> Split:
    return Split(split.x[indices], split.y[indices])
