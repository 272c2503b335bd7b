"""Files of arrays, looked at before they are read: types and sizes of the arrays, the memory that they need."""

import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from experiments.config import Problem, Refused
from experiments.data.checks import described
from experiments.system.resources import available_memory
from experiments.task import Wrong
from experiments.task.classification import ENCODE_CLASSES

# An archive that grows by so much, to so many bytes, is taken for one that was made to fill the memory.
BOMB_RATIO, BOMB_SIZE = 200, 500_000_000
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Declared(NamedTuple):
    """What the header of an array says: its shape and type. `size` is in bytes, as the archive says it."""

    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    size: int


def check(stream: IO[bytes], file: Path, names: Sequence[str]) -> None:
    """Check that an archive has all arrays, of plain types, and that they fit into memory.

    Raises:
        Refused: With all that is wrong.
        Exception: Of any class, where the file is damaged.
    """
    with zipfile.ZipFile(stream) as archive:
        members = archive.namelist()
        found = [name.removesuffix(".npy") for name in members]
        if missing := [name for name in names if name not in found]:
            listed = ", ".join(found[:20]) or "nothing"
            what = f"has no {' and no '.join(missing)}; found {listed}, expected {', '.join(names)}"
            raise Refused(Problem(str(file), what))
        # NumPy may read other members than are checked here: one without the ending, or the last of two with one name.
        if unclear := [name for name in names if found.count(name) > 1 or f"{name}.npy" not in members]:
            listed = ", ".join(name for name in members if name.removesuffix(".npy") in unclear)[:200]
            expected = " and ".join(f"{name}.npy" for name in unclear)
            raise ValueError(f"it has members that NumPy would not write, {listed}, expected {expected} once")
        declared = {name: _declared(archive, f"{name}.npy") for name in names}
        packed = sum(archive.getinfo(f"{name}.npy").compress_size for name in names)
    if objects := {name: [_objects(name)] for name, array in declared.items() if array.dtype.hasobject}:
        raise Refused(described(str(file), objects))
    check_growth(file, packed, sum(array.size for array in declared.values()))
    check_memory(file, {name: (int(np.prod(d.shape, dtype=object)), d.dtype.itemsize) for name, d in declared.items()})


def check_growth(file: Path | str, packed: int, size: int) -> None:
    """Check the bytes of an archive's members, packed and not.

    Raises:
        Refused: They grow by so much that the file was made to fill the memory.
    """
    if size > BOMB_SIZE and size > BOMB_RATIO * packed:
        what = f"grows from {packed:,} to {size:,} bytes: made to fill the memory? np.savez saves without compression"
        raise Refused(Problem(str(file), what))


def check_memory(file: Path, arrays: Mapping[str, tuple[int, int]]) -> None:
    """Check that arrays fit into memory as they are stored and, beside that, as float32.

    Args:
        file: Where they come from.
        arrays: Number of values, and bytes of each, by name.

    Raises:
        Refused: They do not.
    """
    needed = sum(count * (size + (4 if name.startswith("x_") else 0)) for name, (count, size) in arrays.items())
    if needed > (available := available_memory()):
        what = f"needs {needed / 1e9:,.1f} GB of memory, and {available / 1e9:,.1f} GB are free; save fewer images"
        raise Refused(Problem(str(file), what))


def _declared(archive: zipfile.ZipFile, name: str) -> Declared:
    information = archive.getinfo(name)
    with archive.open(information) as member:
        shape, _, dtype = HEADERS[npy.read_magic(member)](member)
        size = information.file_size - member.tell()
    values = int(np.prod(shape, dtype=object))
    if dtype.itemsize == 0:
        raise ValueError(f"{name} is said to have {values:,} values without any bytes")
    if not dtype.hasobject and values * dtype.itemsize != size:
        raise ValueError(f"{name} is said to have {values:,} values of {dtype}, and has {size:,} bytes")
    return Declared(shape, dtype, size)


def _objects(name: str) -> Wrong:
    mend = ENCODE_CLASSES if name.startswith("y_") else "save one array of numbers, of images of one size"
    return Wrong("holds Python objects, which are not read, as that could run code", mend)


def is_file(path: Path) -> bool:
    """Whether it is an ordinary file, and can be opened without waiting: no pipe, no device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # it is not there, or its name cannot be one
        return False


@contextmanager
def readable(file: Path | str, other: str, remedy: str) -> Iterator[None]:
    """Refuse a file, whatever the libraries raise that read it: nearly all classes of exceptions have been seen."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        what = " ".join(filter(None, ["is damaged,", other])).removesuffix(",")
        raise Refused(Problem(str(file), f"{what} ({reason(error)}); {remedy}")) from error


def reason(error: Exception) -> str:
    """What a library said, on one line."""
    if "pickle" in str(error):  # NumPy would have it read all the same, which can run code
        return "the file holds Python objects, or is not an archive"
    return " ".join(str(error).split())[:300] or type(error).__name__
