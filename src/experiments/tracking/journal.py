"""The journal of a run: what it says of itself, an event a line, in a folder of its own below the run's output.

    record/journal.jsonl    the events, in order, each with the time at which it was written
    record/files/…          artifacts that events name
    record/delivered.json   how much of the journal a store has, and the run's id there

A run only appends. `experiments.tracking.writer` applies the events to MLflow, now or later.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
                if self._file.write(line) != len(line):
                    raise OSError(f"no space left for {self.folder / JOURNAL}")
                self._size += len(line)
                if sync or time.monotonic() - self._synced >= SYNC_SECONDS:
                    os.fdatasync(self._file.fileno())
                    self._synced = time.monotonic()
                if os.fstat(self._file.fileno()).st_nlink == 0:
                    raise OSError(f"{self.folder} was removed")
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
                raise RunFailed(f"the run could not be recorded: {error.strerror or error}") from error

    def add_file(self, name: str, content: bytes | str) -> None:
        """Write a file and the event that names it; `name` is its place among the artifacts.

        Raises:
            RunFailed: It cannot be written.
        """
        self.write(f"{FILES}/{name}", content)
        self.append("file", path=name)

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file below `folder`, and force it to the disk.

        Raises:
            RunFailed: It cannot be written.
        """
        place = self.folder / name
        plain = content if isinstance(content, bytes) else content.encode()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"the run could not be recorded: {error.strerror or error}") from error
        self.write_by(name, lambda file: file.write_bytes(plain))

    def write_by(self, name: str, save: Callable[[Path], object]) -> None:
        """Have a function write a file below `folder`, and force it to the disk.

        Raises:
            RunFailed: It cannot be written.
        """
        try:
            save(self.folder / name)
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailed(f"the run could not be recorded: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the journal."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        with contextlib.suppress(ValueError, RecursionError):  # a power failure can leave a line of zeros
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
    with contextlib.suppress(OSError):  # not every file system can
        opened_folder = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened_folder)
        finally:
            os.close(opened_folder)


def sync(folder: Path) -> None:
    """Force a journal to the disk. What a store has of a run must never be lost here: it would come a second time."""
    with contextlib.suppress(OSError), open_file(folder / JOURNAL) as file:
        os.fdatasync(file.fileno())


def opening(folder: Path) -> Event:
    """The first event of a journal; empty if it has none."""
    first = next(read(folder), None)
    return first[0] if first and first[0]["event"] == "opened" else {}


def at_work(folder: Path) -> bool:
    """Whether the process of a journal is at work on it."""
    return lock.is_held(folder / JOURNAL)


@dataclass(frozen=True)
class Delivered:
    """What a store has of a journal.

    Attributes:
        run_id: MLflow's id of the run there.
        bytes: Up to which byte of the journal its events were applied.
        ending: A digest of what is before that byte: another copy of the journal may have taken its place.
        complete: All of a journal that was closed.
        rejected: Why events were refused for good.
        trouble: Why the rest could not be delivered, the last time.
        gone: The run was deleted there, or the store is another one now.
    """

    run_id: str = ""
    bytes: int = 0
    ending: str = field(default="", compare=False)
    complete: bool = False
    rejected: tuple[str, ...] = ()
    trouble: str = ""
    gone: bool = False


def delivered(folder: Path) -> dict[str, Delivered]:
    """What each store has of a journal, by the store's name; nothing, where that cannot be read."""
    try:
        with open_file(folder / DELIVERED) as file:
            written = json.load(file)
        found = {
            store: Delivered(**{**state, "rejected": tuple(state["rejected"])}) for store, state in written.items()
        }
        return {store: _checked(folder, state) for store, state in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _checked(folder: Path, state: Delivered) -> Delivered:
    """What is true of a journal that was replaced by another copy, or that goes on, since it was delivered."""
    if state.ending != _ending(folder, state.bytes):
        return replace(state, bytes=0, ending="", complete=False)
    return replace(state, complete=state.complete and not any(read(folder, state.bytes)))


def _ending(folder: Path, size: int) -> str:
    """A digest of the last line among the first `size` bytes of a journal, which has its time."""
    with open_file(folder / JOURNAL) as file:
        file.seek(max(size - 200, 0))
        return hashlib.sha256(file.read(min(size, 200))).hexdigest()[:16] if size else ""


def note_delivered(folder: Path, store: str, state: Delivered) -> None:
    """Replace what a store has of a journal."""
    new = folder / f"{DELIVERED}.new"
    states = {**delivered(folder), store: replace(state, ending=_ending(folder, state.bytes))}
    new.unlink(missing_ok=True)  # in a foreign folder it may be a link
    with new.open("x") as file:
        file.write(json.dumps({name: vars(each) for name, each in states.items()}))
    new.replace(folder / DELIVERED)


@dataclass(frozen=True)
class Summary:
    """What a journal says of its run so far.

    Attributes:
        folder: Of the journal; the run's output is in the folder around it.
        uuid: The run's own.
        opened: The first event; empty: the run did not come that far.
        status: RUNNING, FINISHED, FAILED or KILLED; RUNNING also for one whose process is gone without a word.
        objective: What the run is ranked by; None: it was not measured.
        seconds: What it took, without pauses before it was resumed.
        failure: Why it failed.
        steps: The metrics that were recorded, with their steps.
        resumed: How often it went on.
        has_model: Whether its model is there.
        time: Of the last event, in milliseconds since 1970.
    """

    folder: Path
    uuid: str = ""
    opened: Mapping[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    objective: float | None = None
    seconds: float = 0.0
    failure: str = ""
    steps: frozenset[tuple[str, int]] = frozenset()
    resumed: int = 0
    has_model: bool = False
    time: int = 0

    @property
    def tags(self) -> Mapping[str, str]:
        """The run's tags, as it opened."""
        return dict(self.opened.get("tags", {})) | ({"failure": self.failure} if self.failure else {})

    def is_in(self, store: str, experiments: Sequence[str]) -> bool:
        """Whether the run is one of a store, by its name, and of one of these experiments."""
        return self.opened.get("store") == store and self.opened.get("experiment") in experiments

    @property
    def output(self) -> Path:
        """The folder of the run's output."""
        return self.folder.parent

    @property
    def delivered(self) -> Delivered:
        """What the store that the run was started with has of it."""
        return self.delivered_to(self.opened.get("store", ""))

    def delivered_to(self, store: str) -> Delivered:
        """What a store has of it."""
        return delivered(self.folder).get(store, Delivered())


def summary(folder: Path) -> Summary:
    """Sum up a journal."""
    said: dict[str, Any] = {}
    steps, began, last, seconds = set[tuple[str, int]](), 0, 0, 0.0
    for event, _ in read(folder):
        kind, last = event["event"], event["time"]
        if kind == "opened":
            said |= {"uuid": event["uuid"], "opened": event}
            began = event["started"]
        elif kind == "resumed":
            said |= {"status": "RUNNING", "failure": "", "resumed": said.get("resumed", 0) + 1}
            began, seconds = event["started"], event["earlier"]
        elif kind == "metrics":
            steps.update((name, event["step"]) for name in event["values"])
            said["objective"] = event["values"].get("objective", said.get("objective"))
        elif kind == "model":
            said["has_model"] = True
        elif kind == "closed":
            said |= {"status": event["status"], "failure": event["failure"]}
    taken = seconds + max(last - began, 0) / 1000
    return Summary(folder, **said, steps=frozenset(steps), seconds=taken, time=last)


def close_abandoned(folder: Path, status: str, reason: str) -> bool:
    """Close the journal of a process that is gone, unless it is closed; whether it is closed now.

    Its last event says when the run ended: it may be closed days later.

    Args:
        folder: Of the journal.
        status: FAILED or KILLED.
        reason: Why, in words.
    """
    try:
        with Journal(folder) as left:
            found = summary(folder)
            if found.status == "RUNNING" and found.opened:
                ended = max([found.time, *_times_beneath(found)])
                trace = f"{reason}\n" if reason else ""
                left.append("closed", time=ended, status=status, failure=reason[:500], trace=trace)
    except OSError:  # its process is at work on it
        return False
    return True


def _times_beneath(sweep: Summary) -> Iterator[int]:
    """When the runs of a sweep last said anything: the sweep itself says nothing meanwhile."""
    for file in sweep.output.rglob(JOURNAL) if "sweep" in sweep.tags else ():
        if opening(file.parent).get("parent") == sweep.uuid:
            yield summary(file.parent).time


def new_uuid() -> str:
    """An id for a run, of letters and digits: it is looked for in a store by a query."""
    return uuid4().hex
