"""Where data sets come from: a module each, which is found by the names of its data sets.

A module has ``NAMES``, the data sets that it knows, and

    locate(config: Data) -> Path | None        the file, or None where a library provides the data; or it is refused
    read(config: Data, file: Path | None, trust: Sequence[str]) -> tuple[RawArrays, str]
                                               the arrays as they are, and in words where they come from

and may have ``OUTLINES``, what is known of its data sets without reading them, by name, and ``DIGESTS``, the
sha256 of data sets that have one standard copy. A file that the user names, or that lies in
``$EXPERIMENTS_DATA_DIR``, is taken before any of them.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data.archive import readable
from experiments.data.checks import CheckedArrays, Outline, RawArrays, check, digest_of
from experiments.data.sources import npz
from experiments.task import of


@cache
def _by_name() -> dict[str, ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    return {name: module for module in modules for name in module.NAMES}


def _of(config: Data) -> ModuleType:
    return _by_name().get(config.name, npz)


def locate(config: Data) -> Path | None:
    """Find the file that holds the data set.

    Returns:
        The file (Fashion-MNIST: Keras's folder of four), or None where a library or a function provides the data.

    Raises:
        Refused: It was not found, and cannot be downloaded.
    """
    found: Path | None = npz.named(config) or _of(config).locate(config)
    return found


def read(config: Data, trust: Sequence[str] = (), task: str = "classification") -> tuple[CheckedArrays, str, str]:
    """Read a data set.

    Args:
        config: The data set.
        trust: Packages whose functions may be called.
        task: What its targets are.

    Returns:
        Its arrays, checked; their digest; and where they come from.

    Raises:
        Refused: It was not found, or its arrays are damaged or do not fit each other.
    """
    file = locate(config)
    source = npz if npz.named(config) else _of(config)
    raw: RawArrays
    raw, said = source.read(config, file, trust)
    with readable(said, "or not an .npz file of plain arrays", "fetch or save it again"):
        arrays, found = check(raw, said, config.scale, of(task)), digest_of(raw)
    known = getattr(_of(config), "DIGESTS", {}).get(config.name, found)
    if file and known != found:
        raise Refused(
            Problem(
                said,
                f"differs from the standard copy of {config.name}: its arrays have sha256 {found[:12]}…, expected "
                f"{known[:12]}…; fetch it again, or use it as data of your own",
                f"data=npz data.path={file} data.scale={config.scale:g}",
            )
        )
    return arrays, found, said


def outline(config: Data, trust: Sequence[str] = (), task: str = "classification") -> Outline:
    """The digest of a data set and the sizes of its parts; the data is read and checked only if they are not known.

    Raises:
        Refused: As `read`.
    """
    if locate(config) is None and (known := getattr(_of(config), "OUTLINES", {}).get(config.name)):
        return known  # type: ignore[no-any-return]
    (_, y_train, _, y_test), digest, _ = read(config, trust, task)
    return Outline(digest, len(y_train), len(y_test))
