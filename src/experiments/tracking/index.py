"""Which journals there are: those that wait to be delivered, and those of runs with the same fingerprint."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from experiments.config import Problem, Refused
from experiments.tracking import journal, lock
from experiments.tracking.store import FOLDER, WAITING

# In `mlruns/`, a file for each fingerprint, which lists its journals. Who trains a run holds a lock on it.
CLAIMS = "claims"
LONGEST_PATH = 4096  # bytes


def add_waiting(uuid: str, folder: Path) -> None:
    """Note that a journal waits to be delivered."""
    place = FOLDER / WAITING
    place.mkdir(parents=True, exist_ok=True)
    new = place / f".{uuid}.{os.getpid()}"
    with new.open("w") as file:
        file.write(_written(folder))
        file.flush()
        os.fsync(file.fileno())
    new.replace(place / uuid)
    journal.sync_folder(place)


def remove_waiting(uuid: str) -> None:
    """Note that a journal was delivered whole."""
    (FOLDER / WAITING / uuid).unlink(missing_ok=True)
    with suppress(OSError):  # others wait
        (FOLDER / WAITING).rmdir()


def waiting() -> list[Path]:
    """The folders of the journals that wait, in the order in which they began to."""
    try:
        files = [(file.stat().st_mtime, file) for file in (FOLDER / WAITING).iterdir() if file.name[0] != "."]
    except OSError:
        return []
    found = list[Path]()
    for _, file in sorted(files):
        try:
            with journal.open_file(file) as opened:
                written = opened.read(LONGEST_PATH).decode()
            if not written or "\0" in written:
                raise ValueError("it was lost in a power failure, or because the disk was full")
            folder = _read(written)
            found += [folder] if folder.is_dir() else []
        except (OSError, ValueError):
            found += _repaired(file)
    return found


def _repaired(entry: Path) -> list[Path]:
    """The folder of the journal of an unreadable entry; the entry is written again, or removed without a journal."""
    folders = [file.parent for file in FOLDER.absolute().rglob(journal.JOURNAL)]
    own = [folder for folder in folders if journal.opening(folder).get("uuid") == entry.name]
    with suppress(OSError):  # a folder, for one
        entry.unlink()
        if own:
            add_waiting(entry.name, own[0])
    return own[:1]


def is_waiting(uuid: str) -> bool:
    """Whether the journal of a run waits to be delivered, here."""
    return bool(uuid) and (FOLDER / WAITING / uuid).exists()


class Claim:
    """The right to train the run of a fingerprint. It ends with `release`, or with this process.

    Args:
        fingerprint: Of the run, or what stands for it.
    """

    def __init__(self, fingerprint: str) -> None:
        self._file = FOLDER / CLAIMS / fingerprint
        self._held: IO[bytes] | None = None

    def take(self, patience: float = lock.MOMENT) -> bool:
        """Claim it, unless another process holds it for longer than `patience` seconds.

        Raises:
            Refused: What should be the file of the claim is none.
        """
        if self._file.exists() and not self._file.is_file():
            raise Refused(Problem(str(self._file), "is a folder, a pipe or a device instead of a file; remove it"))
        self._held = self._held or lock.take(self._file, patience)
        return self._held is not None

    def is_free(self) -> bool:
        """Whether no other process holds it."""
        return not lock.is_held(self._file)

    def add(self, folder: Path) -> None:
        """Note that a journal is one of this fingerprint, and that this process is at work on it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps([_written(folder), os.getpid()]) + "\n")

    def journals(self) -> list[Path]:
        """The folders of the journals of this fingerprint that are still there, the latest first."""
        return list(dict.fromkeys(folder for folder, _ in reversed(list(self._entries())) if folder.is_dir()))

    def journal_of(self, process: int) -> Path | None:
        """The folder of the journal that a process was last at work on."""
        return next((folder for folder, pid in reversed(list(self._entries())) if pid == process), None)

    def holder(self) -> str:
        """The process that was last at work on a run of this fingerprint, in words."""
        entries = list(self._entries())
        return f"process {entries[-1][1]} ({entries[-1][0].parent})" if entries else "another process"

    def release(self) -> None:
        """Let others have it. Nothing is left of it where no journal was begun."""
        if self._held:
            with suppress(OSError):  # it is gone, or its folder holds more
                if not self._file.stat().st_size:
                    self._file.unlink()
                    for folder in self._file.parents[:2]:
                        folder.rmdir()
            self._held.close()
            self._held = None

    def _entries(self) -> Iterator[tuple[Path, int]]:
        try:
            with journal.open_file(self._file) as file:
                lines = file.read().splitlines()
        except OSError:
            return
        for line in lines:
            with suppress(ValueError, TypeError, RecursionError):  # it is damaged
                folder, process = json.loads(line)
                if isinstance(folder, str):
                    yield _read(folder), int(process)


def _written(folder: Path) -> str:
    """A folder's place, relative to ours where it is within: `mlruns/` may be moved."""
    folder, own = folder.absolute(), FOLDER.absolute()
    return str(folder.relative_to(own)) if folder.is_relative_to(own) else str(folder)


def _read(written: str) -> Path:
    return FOLDER.absolute() / written
