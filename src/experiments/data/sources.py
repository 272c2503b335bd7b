"""Where data sets come from. One is never swapped for another."""

import gzip
import math
import os
import stat
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data import archive
from experiments.data.checks import ARRAYS, CheckedArrays, RawArrays, check, digest_of

# The files that Keras keeps in its cache; Fashion-MNIST's are in the order of ARRAYS.
KERAS_FILES = {
    "mnist": ["mnist.npz"],
    "fashion_mnist": [
        f"fashion-mnist/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ],
}
KERAS_DOWNLOADS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
# Digests of data sets that everybody has the same copy of; a file that claims to be one of them must match.
KNOWN_DIGESTS = {"mnist": "2229557d3d58bcbc6b0f0c8f702c48cc075902f3f0630af576ec11137f9df98e"}


def locate(config: Data) -> Path | None:
    """Find the file that holds the data set: ``data.path``, ``$EXPERIMENTS_DATA_DIR``, Keras's cache.

    Returns:
        The file (Fashion-MNIST: Keras's folder of four), or None where a library provides the data (scikit-learn, or
        Keras by a download).

    Raises:
        Refused: It is neither here nor to be downloaded.
    """
    if config.path:
        if not _is_file(file := Path(os.path.expanduser(config.path))):
            raise Refused(Problem("data.path", f"there is no file {config.path}{_kind(file)}"))
        return file
    folder = os.environ.get("EXPERIMENTS_DATA_DIR")
    if folder and _is_file(file := Path(folder, f"{config.name}.npz")):
        return file
    if config.name == "digits":
        return None
    looked = f"looked at $EXPERIMENTS_DATA_DIR ({folder or 'not set'})"
    if config.name not in KERAS_FILES:
        raise Refused(
            Problem("data.path", f"is not set, and there is no {config.name}.npz; {looked}; say data.path=FILE")
        )
    cache = _keras_cache()
    missing = [name for name in KERAS_FILES[config.name] if not _is_file(Path(cache, name))]
    if not missing:
        first = Path(cache, KERAS_FILES[config.name][0])
        return first if first.suffix == ".npz" else first.parent
    url = KERAS_DOWNLOADS + Path(missing[0]).name
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3).close()
    except (OSError, ValueError, HTTPException) as error:  # also of a proxy's address
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


def _is_file(path: Path) -> bool:
    """Whether it is an ordinary file, and can be opened without waiting: no pipe, no device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # it is not there, or its name cannot be one
        return False


def _kind(path: Path) -> str:
    """What a path is that is no file, in words."""
    with suppress(OSError, ValueError):
        return ": it is a folder" if stat.S_ISDIR(path.stat().st_mode) else ": it is a pipe, a socket or a device"
    return ""


def _keras_cache() -> Path:
    """Keras's folder of data sets. Keras takes the temporary folder where the home folder cannot be written."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"], "datasets")
    try:
        home = Path.home()
    except RuntimeError:  # a user without one, as in containers
        home = Path("/nonexistent")
    return Path(home if os.access(home, os.W_OK) else "/tmp", ".keras", "datasets")  # noqa: S108 - as Keras does


def read(config: Data) -> tuple[CheckedArrays, str, str]:
    """Read a data set.

    Returns:
        Its arrays, checked; their digest; and where they come from.

    Raises:
        Refused: It is not to be had, or its arrays are damaged or do not fit each other.
    """
    file = locate(config)
    source = str(file) if file else f"{config.name} of scikit-learn" if config.name == "digits" else "Keras download"
    raw = _read_file(file) if file else _from_library(config.name)
    with _readable(source, "or not an .npz file of plain arrays", "fetch or save it again"):
        arrays, found = check(raw, source, config.scale), digest_of(raw)
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


class Outline(NamedTuple):
    """A data set: the sha256 of its arrays, and how many images there are to train and to test with."""

    digest: str
    train: int
    test: int


# The digits that scikit-learn carries, which takes two seconds to import.
DIGITS = Outline("1ea06ec674c4b7e50ff9c2a685de43a14a337dcdcabc683d89544406ad7e6a1b", 1438, 359)


def outline(config: Data) -> Outline:
    """Read and check a data set, and give its outline.

    Raises:
        Refused: As `read`.
    """
    if config.name == "digits" and locate(config) is None:
        return DIGITS
    (_, y_train, _, y_test), digest, _ = read(config)
    return Outline(digest, len(y_train), len(y_test))


def _from_library(name: str) -> RawArrays:
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x, y = bunch.images, bunch.target
        test = np.arange(len(y)) % 5 == 4
        return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    from experiments.system.imports import import_keras

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
    with _readable(file, "or not an .npz file of plain arrays", "fetch or save it again"), file.open("rb") as stream:
        archive.check(stream, file, ARRAYS)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ARRAYS}


def _read_idx(file: Path) -> NDArray[np.generic]:
    """Read the format of http://yann.lecun.com/exdb/mnist: a magic number, the sizes, the bytes."""
    with _readable(file, "", "remove it, and Keras fetches it again"), gzip.open(file) as stream:
        dimensions = stream.read(4)[3]
        shape = np.frombuffer(stream.read(4 * dimensions), ">u4").tolist()
        count = math.prod(shape)  # of Python's numbers, as it may be beyond 64 bits
        archive.check_memory(file, {"its array": (count, 1)})
        content = stream.read(count + 1)
        return np.frombuffer(content, np.uint8).reshape(shape)


@contextmanager
def _readable(file: Path | str, other: str, remedy: str) -> Iterator[None]:
    """Refuse a file, whatever the libraries raise that read it: nearly all classes of exceptions have been seen."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        what = " ".join(filter(None, ["is damaged,", other])).removesuffix(",")
        raise Refused(Problem(str(file), f"{what} ({_reason(error)}); {remedy}")) from error


def _reason(error: Exception) -> str:
    if "pickle" in str(error):  # NumPy would have it read all the same, which can run code
        return "it holds Python objects, or is no archive"
    return " ".join(str(error).split())[:300] or type(error).__name__
