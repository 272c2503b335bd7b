"""An ``.npz`` file: one that ``data.path`` names, or that lies in ``$EXPERIMENTS_DATA_DIR`` by the data set's name."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data import archive
from experiments.data.archive import readable
from experiments.data.checks import ARRAYS, RawArrays

NAMES = ("npz",)


def named(config: Data) -> Path | None:
    """The file that the user named for a data set; None: none.

    Raises:
        Refused: It is not there.
    """
    if config.path:
        if not archive.is_file(file := Path(os.path.expanduser(config.path))):
            raise Refused(Problem("data.path", f"there is no file {config.path}{_kind(file)}"))
        return file
    folder = os.environ.get("EXPERIMENTS_DATA_DIR")
    file = Path(folder or "", f"{config.name}.npz")
    return file if folder and archive.is_file(file) else None


def looked() -> str:
    """Where files were looked for, in words."""
    return f"looked at $EXPERIMENTS_DATA_DIR ({os.environ.get('EXPERIMENTS_DATA_DIR') or 'not set'})"


def locate(config: Data) -> Path | None:
    """Refuse a data set that no file was named for."""
    what = f"is not set, and there is no {config.name}.npz; {looked()}; say data.path=FILE"
    raise Refused(Problem("data.path", what))


def read(config: Data, file: Path | None, trust: Sequence[str]) -> tuple[RawArrays, str]:
    """Read the arrays of a file.

    Raises:
        Refused: It is damaged, lacks arrays, or needs more memory than there is.
    """
    assert file
    with readable(file, "or not an .npz file of plain arrays", "fetch or save it again"), file.open("rb") as stream:
        archive.check(stream, file, ARRAYS)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ARRAYS}, str(file)


def _kind(path: Path) -> str:
    """What a path is that is no file, in words."""
    with suppress(OSError, ValueError):
        return ": it is a folder" if stat.S_ISDIR(path.stat().st_mode) else ": it is a pipe, a socket or a device"
    return ""
