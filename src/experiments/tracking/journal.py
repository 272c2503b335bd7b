"""The journal of a run: what it says of itself, an event a line, in a folder of its own below the run's output.

    record/journal.jsonl    the events, in order, each with the time at which it was written
    record/files/…          artifacts that events name
    record/delivered.json   how much of the journal a store has, and the run's id there

A run only appends. `experiments.tracking.writer` applies the events to MLflow, now or later.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import IO, Any
from uuid import uuid4

from experiments.config import RunFailed
from experiments.tracking import lock

JOURNAL, FILES, DELIVERED = "journal.jsonl", "files", "delivered.json"
SYNC_SECONDS = 5.0  # between two times that epochs are forced to the disk; the writer does so before it sends them
Event = dict[str, Any]
# What is taken for an event: what it needs in order to be understood. A journal may be damaged, or a foreign one.
SHAPES: Mapping[str, Mapping[str, type]] = {
    "opened": {"uuid": str, "started": int, "tags": dict},
    "resumed": {"started": int, "earlier": float, "number": int},
    "metrics": {"step": int, "values": dict},
    "closed": {"status": str, "failure": str, "trace": str},
}
UUID_OF_A_RUN = re.compile("[0-9a-z]{1,64}")


class Journal:
    """The journal of a run that is under way in this process, which holds a lock on it until `close`.

    Attributes:
        folder: With the journal and its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = (folder / JOURNAL).open("a+b", buffering=0)
        if not lock.hold(self._file):
            self._file.close()
            raise BlockingIOError(f"{folder} is at work")
        self._alone = RLock()  # system metrics come from another thread
        self._size, self._last, self._synced = _whole(folder / JOURNAL), 0, 0.0
        self._file.truncate(self._size)  # a power failure may have left half a line

    @classmethod
    def create(cls, output: Path) -> "Journal":
        """Begin a journal in a folder for output; what other runs have left there stays."""
        number = 1
        while True:
            folder = output / ("record" if number == 1 else f"record-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                number += 1
                continue
            own = cls(folder)
            for each in (folder, output):
                sync_folder(each)
            return own

    def append(self, event: str, *, sync: bool = True, **content: Any) -> None:
        """Write an event down.

        Args:
            event: Its kind.
            sync: Force it to the disk; else at most once in `SYNC_SECONDS`.
            content: What JSON can hold.

        Raises:
            RunFailed: It cannot be written. What was written before is whole.
        """
        with self._alone:
            self._last = max(int(time.time() * 1000), self._last)  # the clock may be set back
            line = json.dumps({"event": event, "time": self._last, **content}).encode() + b"\n"
            try:
                with writing():
                    self._write(line, sync)
            except RunFailed:
                with suppress(OSError):
                    self._file.truncate(self._size)
                raise

    def _write(self, line: bytes, sync: bool) -> None:
        if self._file.write(line) != len(line):
            raise OSError(f"no space left for {self.folder / JOURNAL}")
        self._size += len(line)
        if sync or time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fdatasync(self._file.fileno())
            self._synced = time.monotonic()
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise OSError(f"{self.folder} was removed")

    def add_file(self, name: str, content: bytes | str) -> None:
        """Write a file and the event that names it; `name` is its place among the artifacts.

        Raises:
            RunFailed: It cannot be written.
        """
        self.write(f"{FILES}/{name}", content)
        self.append("file", path=name)

    def write(self, name: str, content: bytes | str | Callable[[Path], object]) -> None:
        """Write a file below `folder`, and force it to the disk.

        Args:
            name: Its place.
            content: What is in it, or a function that writes it.

        Raises:
            RunFailed: It cannot be written.
        """
        place = self.folder / name
        with writing():
            place.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(place)
            else:
                place.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
            with place.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of the journal."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def writing() -> Iterator[None]:
    """Fail the run where something cannot be written.

    Raises:
        RunFailed: With the reason.
    """
    try:
        yield
    except OSError as error:
        raise RunFailed(f"the run could not be recorded: {error.strerror or error}") from error


def _whole(file: Path) -> int:
    """Up to which byte a journal has whole lines."""
    return file.read_bytes().rfind(b"\n") + 1


def read(folder: Path, start: int = 0) -> Iterator[tuple[Event, int]]:
    """Read the events of a journal from a byte on, each with the byte behind it. What is half written is left out."""
    try:
        with open_file(folder / JOURNAL) as file:
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        start += len(line) + 1
        with suppress(ValueError, RecursionError):  # a power failure can leave a line of zeros
            if _is_event(event := json.loads(line)):
                yield event, start


def _is_event(said: Any) -> bool:
    if not (isinstance(said, dict) and isinstance(said.get("event"), str) and isinstance(said.get("time"), int)):
        return False
    if not all(isinstance(said.get(key), kind) for key, kind in SHAPES.get(said["event"], {}).items()):
        return False
    if said["event"] == "metrics":
        return all(isinstance(value, int | float) for value in said["values"].values())
    return said["event"] != "opened" or bool(UUID_OF_A_RUN.fullmatch(said["uuid"]))


def open_file(file: Path) -> IO[bytes]:
    """Open a file to be read.

    Raises:
        OSError: It is not there, or a pipe or a device, which would be waited for.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no ordinary file")
    return file.open("rb")


def sync_folder(folder: Path) -> None:
    """Force the names of the files in a folder to the disk."""
    with suppress(OSError):  # not every file system can
        opened_folder = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened_folder)
        finally:
            os.close(opened_folder)


def sync(folder: Path) -> None:
    """Force a journal to the disk. What a store has of a run must never be lost here: it would come a second time."""
    with suppress(OSError), open_file(folder / JOURNAL) as file:
        os.fdatasync(file.fileno())


def opening(folder: Path) -> Event:
    """The first event of a journal; empty if it has none."""
    first = next(read(folder), None)
    return first[0] if first and first[0]["event"] == "opened" else {}


def is_sweep(opened: Mapping[str, Any]) -> bool:
    """Whether the first event of a journal is that of a sweep."""
    return "sweep" in opened.get("tags", ())


def at_work(folder: Path) -> bool:
    """Whether the process of a journal is at work on it."""
    return lock.is_held(folder / JOURNAL)


def new_uuid() -> str:
    """An id for a run, of letters and digits: it is looked for in a store by a query."""
    return uuid4().hex
