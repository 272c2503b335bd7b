"""Verified arrays. The only place that knows where data sets come from; it never swaps one for another."""

import gzip
import hashlib
import os
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
RawArrays = dict[str, NDArray[np.generic]]
CheckedArrays = tuple[NDArray[np.generic], Labels, NDArray[np.generic], Labels]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# The files that Keras keeps in its cache; Fashion-MNIST's are in the order of ARRAYS.
KERAS_FILES = {
    "mnist": ["mnist.npz"],
    "fashion_mnist": [
        f"fashion-mnist/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ],
}
KERAS_DOWNLOADS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, AttributeError, TypeError, LookupError)
# Digests of data sets that everybody has the same copy of; a file that claims to be one of them must match.
KNOWN_DIGESTS = {"mnist": "2229557d3d58bcbc6b0f0c8f702c48cc075902f3f0630af576ec11137f9df98e"}


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
        train, test = (_take(part, _stratified(part.y, config.limit, seed)[0]) for part in (train, test))
    if config.validation_size:
        held_out, rest = _stratified(train.y, _validation_count(config, len(train)), seed)
        train, validation = _take(train, rest), _take(train, held_out)
    return replace(whole, train=train, validation=validation, test=test)


def preload(config: Data) -> None:
    """Load a data set for all later `load` calls, also those of processes that are forked from this one."""
    everything = _everything(config)
    if everything not in PRELOADED:
        PRELOADED[everything] = _load_whole(everything)


def digest(config: Data) -> str:
    """Sha256 of a data set's arrays, which are checked.

    Raises:
        Refused: As `load`.
    """
    return _read(config)[1]


def _everything(config: Data) -> Data:
    return config.model_copy(update={"limit": None, "validation_size": 0})


def _load_whole(config: Data) -> Dataset:
    (x_train, y_train, x_test, y_test), found, source = _read(config)
    train, test = _prepare(x_train, y_train, config.scale), _prepare(x_test, y_test, config.scale)
    return Dataset(config.name, found, source, int(y_train.max()) + 1, train, None, test)


def _read(config: Data) -> tuple[CheckedArrays, str, str]:
    """Return the arrays, checked, their digest, and where they come from."""
    file = locate(config)
    source = str(file) if file else f"{config.name} of scikit-learn" if config.name == "digits" else "Keras download"
    raw = _read_file(file) if file else _from_library(config.name)
    arrays, found = _checked(raw, source), _digest(raw)
    if file and KNOWN_DIGESTS.get(config.name, found) != found:
        raise Refused(
            Problem(
                source,
                f"is not the {config.name} that everybody has: its arrays have sha256 {found[:12]}…, expected "
                f"{KNOWN_DIGESTS[config.name][:12]}…; fetch it again, or use it as data of your own",
                f"data=npz data.path={file} data.scale={config.scale:g}",
            )
        )
    return arrays, found, source


def locate(config: Data) -> Path | None:
    """Find the file that holds the data set: ``data.path``, ``$EXPERIMENTS_DATA_DIR``, Keras's cache.

    Returns:
        The file (Fashion-MNIST: Keras's folder of four), or None where a library provides the data (scikit-learn, or
        Keras by a download).

    Raises:
        Refused: It is neither here nor to be downloaded.
    """
    if config.path:
        if not Path(config.path).is_file():
            raise Refused(Problem("data.path", f"there is no file {config.path}"))
        return Path(config.path)
    folder = os.environ.get("EXPERIMENTS_DATA_DIR")
    if folder and (file := Path(folder, f"{config.name}.npz")).is_file():
        return file
    if config.name == "digits":
        return None
    looked = f"looked at $EXPERIMENTS_DATA_DIR ({folder or 'not set'})"
    if config.name not in KERAS_FILES:
        raise Refused(
            Problem("data.path", f"is not set, and there is no {config.name}.npz; {looked}; say data.path=FILE")
        )
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "datasets")
    missing = [name for name in KERAS_FILES[config.name] if not Path(cache, name).is_file()]
    if not missing:
        first = Path(cache, KERAS_FILES[config.name][0])
        return first if first.suffix == ".npz" else first.parent
    url = KERAS_DOWNLOADS + Path(missing[0]).name
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3).close()
    except OSError as error:
        raise Refused(
            Problem(
                "data",
                f"{config.name} is neither here nor to be downloaded ({error}); {looked} and {cache / missing[0]}. "
                f"Put {config.name}.npz into a folder that $EXPERIMENTS_DATA_DIR names, or give the file as "
                "data.path=FILE, or take the digits that need no download",
                "data=digits",
            )
        ) from error
    return None


def _from_library(name: str) -> RawArrays:
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x, y = bunch.images, bunch.target
        test = np.arange(len(y)) % 5 == 4
        return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    from experiments.backend import import_keras

    import_keras()
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises that very class
        raise Refused(Problem("data", f"Keras could not fetch {name}: {_reason(error)}", "data=digits")) from error
    return dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))


def _read_file(file: Path) -> RawArrays:
    if file.is_dir():
        names = (file / Path(name).name for name in KERAS_FILES["fashion_mnist"])
        return dict(zip(ARRAYS, map(_read_idx, names), strict=True))
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if not (missing := [name for name in ARRAYS if name not in archive.files]):
                return {name: archive[name] for name in ARRAYS}
            found = ", ".join(archive.files) or "nothing"
    except UNREADABLE as error:
        what = f"is damaged, or not an .npz file of plain arrays ({_reason(error)}); fetch or save it again"
        raise Refused(Problem(str(file), what)) from error
    what = f"has no {' and no '.join(missing)}; found {found}, expected {', '.join(ARRAYS)}"
    raise Refused(Problem(str(file), what))


def _read_idx(file: Path) -> NDArray[np.generic]:
    """Read the format of http://yann.lecun.com/exdb/mnist: a magic number, the sizes, the bytes."""
    try:
        content = gzip.decompress(file.read_bytes())
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except UNREADABLE as error:
        what = f"is damaged ({_reason(error)}); remove it, and Keras fetches it again"
        raise Refused(Problem(str(file), what)) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _digest(raw: RawArrays) -> str:
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {raw[name].dtype.str} {raw[name].shape};".encode())
        digest.update(np.ascontiguousarray(raw[name]).data)
    return digest.hexdigest()


def _checked(raw: RawArrays, source: str) -> CheckedArrays:
    """Check shapes, types, lengths and ranges; report all that is wrong."""
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


def _prepare(x: NDArray[np.generic], y: Labels, scale: float) -> Split:
    images = np.divide(x, np.float32(scale), dtype=np.float32, casting="unsafe")
    return Split(images[..., np.newaxis] if images.ndim == 3 else images, y)


def _take(split: Split, indices: NDArray[np.intp]) -> Split:
    return Split(split.x[indices], split.y[indices])


def _validation_count(config: Data, available: int) -> int:
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


def _stratified(y: Labels, count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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
