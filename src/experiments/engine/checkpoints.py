"""Checkpoints of a run, on disk: a file is whole or not there, and the last two are kept."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 2  # the second is there in case the last one was damaged


@dataclass(frozen=True)
class State:
    """A run after an epoch: all that its next epochs depend on.

    Attributes:
        epochs: Number of finished epochs.
        stopped: Whether a callback has ended training.
        seconds: Training time so far, in seconds.
        threads: Number of processor threads; the last bits of sums depend on it.
        history: Each metric's values by epoch.
        variables: Of the model and of its optimizer, in Keras's order.
        callbacks: What each callback of the config remembers: the attributes that training has changed.
        random: The states of Python's and NumPy's random numbers.
        fingerprint: Of the run.
    """

    epochs: int
    stopped: bool
    seconds: float
    threads: int
    history: Mapping[str, Sequence[float]]
    variables: Sequence[NDArray[Any]]
    callbacks: Sequence[Mapping[str, Any]]
    random: Sequence[Any]
    fingerprint: str = ""

    @property
    def by_epoch(self) -> list[dict[str, float]]:
        """The metrics of each epoch."""
        return [{name: values[epoch] for name, values in self.history.items()} for epoch in range(self.epochs)]


@dataclass(frozen=True)
class KerasFunction:
    """A function of ``keras.ops``, by its name: whether a callback looks for smaller or for larger values."""

    name: str


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Raise an interrupt that comes meanwhile at the end: zipfile would make it a ValueError."""
    came, before = list[int](), dict[int, Any]()
    try:
        if threading.current_thread() is threading.main_thread():  # no other one is interrupted
            for each in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(each)):  # else it is ignored, or is not Python's to handle
                    before[each] = signal.signal(each, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Of the run's output.
        place: Of the checkpoints; None: ``checkpoints/`` in that folder.
        fingerprint: Of the run. Checkpoints of another one are not read.

    Attributes:
        folder: Of the run's output.
        state: The latest one that can be read; None if there is none.
    """

    def __init__(self, folder: Path, place: Path | None = None, fingerprint: str = "") -> None:
        self.folder, self._fingerprint = folder, fingerprint
        self._own = place or folder / "checkpoints"
        self.state = next(filter(None, map(self._read, reversed(self._files()))), None)

    def _read(self, file: Path) -> State | None:
        state = _read(file)
        return state if state and state.fingerprint == self._fingerprint else None

    def keep_in(self, place: Path) -> None:
        """Write further checkpoints into another folder."""
        self._own = place

    @_interrupts_wait()
    def save(self, state: State) -> None:
        """Write a checkpoint, and remove the ones before the last two.

        It is not forced to the disk, which may take longer than an epoch. If a power failure cuts off the end of the
        file, its checksum does not match, and the checkpoint before it is used.

        Raises:
            OSError: It cannot be written. Those before are as they were.
        """
        self._own.mkdir(parents=True, exist_ok=True)
        arrays: list[NDArray[Any]] = []
        described = json.dumps(_packed({**vars(state), "fingerprint": self._fingerprint}, arrays)).encode()
        unfinished = self._own / "unfinished"
        try:
            with unfinished.open("wb") as file:
                np.savez(file, np.frombuffer(described, np.uint8), *arrays)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        unfinished.replace(self._own / f"epoch_{state.epochs:06}.npz")
        for old in self._files()[:-KEPT]:
            old.unlink()

    def remove(self) -> None:
        """Remove all of them."""
        self.state = None
        with suppress(OSError):  # what others keep there stays
            for file in [*self._files(), *self._own.glob("unfinished")]:
                file.unlink()
            self._own.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self._own.glob("epoch_*.npz"))


def _read(file: Path) -> State | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            described, *arrays = (archive[f"arr_{number}"] for number in range(len(archive.files)))
        return State(**_unpacked(json.loads(described.tobytes()), arrays))
    except Exception:  # whatever NumPy and zipfile raise: the checkpoint before counts
        return None


def remembered(owner: object, *without: str) -> dict[str, Any]:
    """Collect the attributes of an object that can be written down: numbers, texts, arrays, and collections of them."""
    found = {}
    for name, value in vars(owner).items():
        try:
            _packed(value, [])
        except TypeError:  # a file, a model, a function
            continue
        if name not in without:
            found[name] = value
    return found


def equal(one: Any, other: Any) -> bool:
    """Compare values that can be written down, to the last bit."""
    arrays, others = list[NDArray[Any]](), list[NDArray[Any]]()
    return _packed(one, arrays) == _packed(other, others) and all(
        array.shape == counterpart.shape and array.tobytes() == counterpart.tobytes()
        for array, counterpart in zip(arrays, others, strict=True)
    )


def _packed(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Write a value as JSON can hold it; its arrays go to `arrays`.

    Raises:
        TypeError: It holds something else.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"cannot be written down: {value.dtype}")
        arrays.append(value)
        return {"array": len(arrays) - 1, "dtype": str(value.dtype)}
    if isinstance(value, KerasFunction):
        return {"function": value.name}
    if isinstance(value, np.generic):
        return _packed(np.asarray(value), arrays) | {"scalar": True}
    if isinstance(value, dict):
        return {"items": [[_packed(key, arrays), _packed(item, arrays)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_packed(item, arrays) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"cannot be written down: {type(value).__name__}")


def _unpacked(value: Any, arrays: Sequence[NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {_unpacked(key, arrays): _unpacked(item, arrays) for key, item in value["items"]}
    if "function" in value:
        return KerasFunction(value["function"])
    if "tuple" in value:
        return tuple(_unpacked(item, arrays) for item in value["tuple"])
    array = arrays[value["array"]]
    if array.dtype.kind == "V":  # bfloat16, which NumPy's format does not know by name
        import ml_dtypes

        array = array.view(getattr(ml_dtypes, value["dtype"]))
    return array[()] if "scalar" in value else array
