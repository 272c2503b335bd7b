"""Verified arrays, scaled and split. A new source of data is a module in `sources/`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data.checks import Images, Outline, Targets, wrong_inputs
from experiments.data.sources import outline, read
from experiments.data.splits import split_sizes, stratified, validation_count
from experiments.task import of

__all__ = [
    "Dataset",
    "Images",
    "Split",
    "Targets",
    "checked_inputs",
    "describe",
    "load",
    "outlines",
    "preload",
]

SMALL, LARGE = 0.1, 10.0  # scaled values that reach less, or more, are hard to train on
FEW = 100  # validation images by which accuracy moves in steps of more than a point


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) or features (n, features), scaled, and their targets (n,).

    Attributes:
        numbers: Indices (n,) of the images in the whole data set; None: all of it.
    """

    x: Images
    y: Targets
    numbers: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A data set, split and checked.

    Attributes:
        digest: Sha256 of the arrays before splitting and scaling.
        outputs: How many a network needs: the number of classes, or one.
        warnings: What is unusual about its values and labels.
    """

    name: str
    digest: str
    source: str
    outputs: int
    train: Split
    validation: Split | None
    test: Split
    warnings: tuple[str, ...] = ()
    task: str = "classification"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of images to train on, to validate with and to test with."""
        return len(self.train), len(self.validation or ()), len(self.test)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return self.train.x.shape[1:]


PRELOADED: dict[tuple[Data, str], Dataset] = {}
EXPECTED: dict[tuple[Data, str], str] = {}  # digests of data sets as they were read before, in another process


def load(config: Data, seed: int, trust: Sequence[str] = (), task: str = "classification") -> Dataset:
    """Load, check, scale and split a data set. Functions of trusted packages may be called for it.

    Raises:
        Refused: The data set was not found, or its arrays are damaged or do not fit each other.
    """
    everything = _everything(config)
    whole = PRELOADED.get((everything, task)) or _load_whole(everything, trust, task)
    if (then := EXPECTED.get((everything, task), whole.digest)) != whole.digest:
        what = f"{whole.source} gave other data (sha256 {whole.digest[:12]}…) than before the sweep ({then[:12]}…)"
        raise Refused(Problem("data", f"{what}; a function has to return the same each time: fix its seed"))
    train, test, validation, strata = whole.train, whole.test, None, of(task).strata
    if config.limit:
        train = _take(train, stratified(strata(train.y), config.limit, seed)[0])
        test = _take(
            test, stratified(strata(test.y), config.limit, seed=0)[0]
        )  # all seeds are measured on the same images
    if config.validation_size:
        held_out, rest = stratified(strata(train.y), validation_count(config, len(train)), seed)
        train, validation = _take(train, rest), _take(train, held_out)
    return replace(whole, train=train, validation=validation, test=test)


Outlines = dict[tuple[Data, str], Outline]
"""By data set, whole, and task."""


def outlines(
    configs: Iterable[tuple[Data, str]], trust: Sequence[str] = (), known: Outlines | None = None
) -> dict[tuple[Data, str], tuple[str, tuple[int, int, int]]]:
    """The digest and the sizes of data sets, each with its task, as `load` would split them. Each is read once.

    Args:
        configs: Of the data sets.
        trust: Packages whose functions may be called for them.
        known: Those that were read before, and are not read again; what is read now is added.

    Raises:
        Refused: As `load`.
    """
    found = {} if known is None else known
    split = {}
    for config, task in configs:
        if (everything := (_everything(config), task)) not in found:
            found[everything] = outline(everything[0], trust, task)
        digest, train, test = found[everything]
        split[config, task] = digest, split_sizes(config, train, test)
    return split


def expect(config: Data, task: str, digest: str) -> None:
    """Have `load` refuse a data set with another digest than it had in the process that started this one."""
    EXPECTED[_everything(config), task] = digest


def preload(config: Data, trust: Sequence[str] = (), task: str = "classification") -> None:
    """Load a data set for all later `load` calls, also those of processes that are forked from this one."""
    everything = _everything(config)
    if (everything, task) not in PRELOADED:
        PRELOADED[everything, task] = _load_whole(everything, trust, task)


def _everything(config: Data) -> Data:
    return config.model_copy(update={"limit": None, "validation_size": 0})


def _load_whole(config: Data, trust: Sequence[str], task: str) -> Dataset:
    (x_train, y_train, x_test, y_test), found, source = read(config, trust, task)
    train, test = _prepare(x_train, y_train, config.scale), _prepare(x_test, y_test, config.scale)
    outputs = of(task).outputs(y_train)
    warnings = (*_warnings(train, config.scale), *of(task).warnings(y_train, outputs))
    return Dataset(config.name, found, source, outputs, train, None, test, warnings, task)


def describe(dataset: Dataset) -> str:
    """Say in a line how many inputs there are, of which size, with which targets and values; then warnings."""
    parts = [dataset.train, *([dataset.validation] if dataset.validation else []), dataset.test]
    counts = " + ".join(f"{len(part):,}" for part in parts)
    shape, x = dataset.input_shape, dataset.train.x
    size = "x".join(map(str, shape[:2] if shape[2:] == (1,) else shape))
    what = f"images {size}" if len(shape) > 1 else f"rows of {shape[0]} values"
    targets = of(dataset.task).describe(dataset.train.y, dataset.outputs)
    line = f"{dataset.name}: {counts} {what}, {targets}, values {x.min():.4g} to {x.max():.4g}"
    if (held_out := len(dataset.validation or ())) and held_out < FEW and dataset.task == "classification":
        step = f"{round(100 / held_out, 1):g}"
        line += f", one validation image is {step} point{'s' * (step != '1')} of accuracy"
    return "\n".join([line, *(f"warning: {warning}" for warning in dataset.warnings)])


def _warnings(train: Split, scale: float) -> Iterator[str]:
    if (largest := float(max(train.x.max(), -train.x.min()))) > LARGE:
        yield f"data.scale: values reach {largest:.4g}, networks train best on values near 1; data.scale={largest:g}"
    elif 0 < largest < SMALL:
        raw = f"data.scale={largest * scale:g}"
        yield f"data.scale: values reach only {largest:.4g}, networks train best on values near 1; {raw}"


def scaled(x: NDArray[np.generic], scale: float) -> Images:
    """Inputs (n, ...) divided by `scale`; images without channels get one: (n, height, width, 1)."""
    inputs: Images = np.divide(x, np.float32(scale), dtype=np.float32, casting="unsafe")
    return inputs.reshape(*inputs.shape, 1) if inputs.ndim == 3 else inputs


def checked_inputs(x: NDArray[np.generic], scale: float, where: str) -> Images:
    """Inputs as `scaled` gives them, if a model can be given them.

    Raises:
        Refused: They are no finite numbers, or not of a shape that inputs have; `where` names them.
    """
    if found := list(wrong_inputs(x, scale)):
        raise Refused([Problem(where, wrong.what) for wrong in found])
    return scaled(x, scale)


def _prepare(x: NDArray[np.generic], y: Targets, scale: float) -> Split:
    return Split(scaled(x, scale), y)


def _take(split: Split, indices: NDArray[np.intp]) -> Split:
    return Split(split.x[indices], split.y[indices], indices if split.numbers is None else split.numbers[indices])
