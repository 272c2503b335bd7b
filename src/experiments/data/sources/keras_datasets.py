"""The data sets that Keras downloads: from its cache, or by a download."""

import gzip
import math
import os
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data import archive
from experiments.data.archive import readable
from experiments.data.checks import ARRAYS, RawArrays
from experiments.data.sources import npz

# What Keras keeps in its cache; Fashion-MNIST's files are in the order of ARRAYS.
FILES = {
    "mnist": ["mnist.npz"],
    "fashion_mnist": [
        f"fashion-mnist/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ],
    "cifar10": ["cifar-10-batches-py-target/cifar-10-batches-py/test_batch"],
    "cifar100": ["cifar-100-python-target/cifar-100-python/test"],
}
NAMES = tuple(FILES)
GOOGLE, TORONTO = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/", "https://www.cs.toronto.edu/~kriz/"
DOWNLOADS = {
    "mnist": [f"{GOOGLE}mnist.npz"],
    "fashion_mnist": [GOOGLE + Path(name).name for name in FILES["fashion_mnist"]],
    "cifar10": [f"{TORONTO}cifar-10-python.tar.gz"],
    "cifar100": [f"{TORONTO}cifar-100-python.tar.gz"],
}
DIGESTS = {"mnist": "2229557d3d58bcbc6b0f0c8f702c48cc075902f3f0630af576ec11137f9df98e"}


def locate(config: Data) -> Path | None:
    """Find what Keras has in its cache; None: Keras downloads it, or reads it itself.

    Raises:
        Refused: It was not found, and cannot be downloaded.
    """
    cache, name = _cache(), config.name
    missing = [place for place in FILES[name] if not archive.is_file(cache / place)]
    if not missing:
        return {"mnist": cache / "mnist.npz", "fashion_mnist": cache / "fashion-mnist"}.get(name)
    url = DOWNLOADS[name][FILES[name].index(missing[0])]
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3).close()
    except (OSError, ValueError, HTTPException) as error:  # also of a proxy's address
        raise Refused(
            Problem(
                "data",
                f"{name} was not found, and cannot be downloaded ({error}); {npz.looked()} and {cache / missing[0]}. "
                f"Put {name}.npz into a folder that $EXPERIMENTS_DATA_DIR names, or give the file as "
                "data.path=FILE, or take the digits that need no download",
                "data=digits",
            )
        ) from error
    return None


def read(config: Data, file: Path | None, trust: Sequence[str]) -> tuple[RawArrays, str]:
    """Read what Keras has in its cache, or have it download the data.

    Raises:
        Refused: It cannot, or a file is damaged.
    """
    if file is None:
        return _by_keras(config.name), "Keras download"
    if file.is_dir():
        return dict(zip(ARRAYS, (_read_idx(file / Path(name).name) for name in FILES[config.name]), strict=True)), str(
            file
        )
    return npz.read(config, file, trust)


def _cache() -> Path:
    """Keras's folder of data sets. Keras takes the temporary folder where the home folder cannot be written."""
    if folder := os.environ.get("KERAS_HOME"):
        return Path(folder, "datasets")
    try:
        home = Path.home()
    except RuntimeError:  # a user without one, as in containers
        home = Path("/nonexistent")
    return Path(home if os.access(home, os.W_OK) else "/tmp", ".keras", "datasets")  # noqa: S108 - as Keras does


def _by_keras(name: str) -> RawArrays:
    from experiments.system.imports import import_keras

    import_keras()
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises that very class
        raise Refused(
            Problem("data", f"Keras could not fetch {name}: {archive.reason(error)}", "data=digits")
        ) from error
    return dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))


def _read_idx(file: Path) -> NDArray[np.generic]:
    """Read the format of http://yann.lecun.com/exdb/mnist: a magic number, the sizes, the bytes."""
    with readable(file, "", "remove it, and Keras fetches it again"), gzip.open(file) as stream:
        dimensions = stream.read(4)[3]
        shape = np.frombuffer(stream.read(4 * dimensions), ">u4").tolist()
        count = math.prod(shape)  # of Python's numbers, as it may be beyond 64 bits
        archive.check_memory(file, {"its array": (count, 1)})
        content = stream.read(count + 1)
        return np.frombuffer(content, np.uint8).reshape(shape)
