"""Runs cases in forks of a process that has imported what the commands import, and has run no TensorFlow."""

import io
import os
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from forks import become, forked, import_everything

from fuzzing import files, records
from fuzzing.case import FOLDER, RUN, SWEEP, Case

# Variables of the developer's that would reach the cases.
OURS = (
    "MLFLOW_",
    "KERAS_",
    "TF_",
    "EXPERIMENTS_",
    "PYTHON",
    "PYTEST",
    "COLUMNS",
    "LINES",
    "CUDA",
    "XDG_",
    "HYDRA_",
    "MPL",
)
TRAINING, SWEEP_OF_FEW, MEMORY = 60.0, 100.0, 4e9  # when a case is stopped: seconds, and bytes
QUIET = 12.0  # seconds that the records take on a quiet machine of two cores

State = dict[str, tuple[str, int, int]]


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        status: Exit status; of a signal, its negative number.
        stopped: Why it was stopped, if it was.
        memory: The most that its process had, or one that it waited for, in bytes.
        before: The files that were there: kind, size, time of the last change.
        rows: The rows of its stores before, by file.
        left: Processes that were still there some seconds after its end.
        pace: How many times longer things took than on a machine of its own.
    """

    place: Path
    folder: Path
    before: State
    rows: Mapping[Path, records.Rows]
    status: int = 0
    seconds: float = 0.0
    memory: float = 0.0
    stopped: str = ""
    left: int = 0
    pace: float = 1.0

    @property
    def stdout(self) -> str:
        """What it wrote to stdout."""
        return (self.place / "out" / "stdout").read_bytes().decode("utf-8", "surrogateescape")

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return (self.place / "out" / "stderr").read_bytes().decode("utf-8", "surrogateescape")

    @property
    def canary(self) -> Path:
        """The file that foreign code writes."""
        return self.place / "out" / "canary"


class Prepared(NamedTuple):
    """The records that cases start with, their ids, and how many times longer they took than on a quiet machine."""

    folder: Path
    environment: Mapping[str, str]
    run: str = ""
    sweep: str = ""
    pace: float = 1.0


def prepare(folder: Path) -> Prepared:
    """Record the runs that cases start with.

    Raises:
        SystemExit: They could not be recorded.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    clean |= {"PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(folder / "matplotlib")}
    prepared, began = Prepared(folder, clean), time.monotonic()
    import_everything()
    place = folder / "prepared"
    for command, *arguments in records.PREPARED:
        outcome = _started(Case(command, arguments), place, prepared, limit=10 * TRAINING).finished()
        if outcome.status:
            sys.exit(f"the records could not be prepared: {command} {arguments}\n{outcome.stdout}{outcome.stderr}")
    run, sweep = records.ids(place / "a/b/work" / "mlruns")
    return Prepared(folder, clean, run, sweep, pace=max(1.0, (time.monotonic() - began) / QUIET))


def carry_out(cases: Iterable[tuple[int, Case]], prepared: Prepared, jobs: int) -> Iterator[tuple[int, Case, Outcome]]:
    """Run cases, so many at a time, and give back each when it has ended."""
    waiting, running = iter(cases), list[tuple[int, Case, _Running]]()
    while True:
        while len(running) < jobs and (following := next(waiting, None)):
            number, case = following
            running.append((number, case, _start(case, prepared.folder / f"case{number}", prepared)))
        if not running:
            return
        time.sleep(0.01)
        for entry in list(running):
            if outcome := entry[2].poll():
                running.remove(entry)
                yield entry[0], entry[1], outcome


def _start(case: Case, place: Path, prepared: Prepared) -> "_Running":
    folder = place / "a" / "b" / case.folder
    folder.mkdir(parents=True)
    if case.store:
        records.copy(prepared.folder / "prepared/a/b/work" / "mlruns", folder / "mlruns")
    for path, maker, *arguments in case.files:
        with suppress(OSError, LookupError, ValueError, zipfile.BadZipFile):  # an earlier one is in the way
            files.make(folder / path, maker, *(_filled_in(item, folder, prepared) for item in arguments))
    return _started(case, place, prepared, SWEEP_OF_FEW if case.is_sweep else TRAINING)


def _filled_in(item: object, folder: Path, prepared: Prepared) -> object:
    if not isinstance(item, str):
        return item
    return item.replace(FOLDER, str(folder.parent)).replace(RUN, prepared.run).replace(SWEEP, prepared.sweep)


def _started(case: Case, place: Path, prepared: Prepared, limit: float) -> "_Running":
    folder = place / "a" / "b" / case.folder
    for made in (folder, place / "out", place / "a/b/home", place / "a/b/tmp"):
        made.mkdir(parents=True, exist_ok=True)
    arguments = [str(_filled_in(item, folder, prepared)) for item in case.arguments]
    environment: dict[str, str] = {
        **prepared.environment,
        "HOME": str(place / "a/b/home"),
        "TMPDIR": str(place / "a/b/tmp"),
        files.CANARY: str(place / "out/canary"),
    }
    for key, value in case.environment.items():
        environment.pop(key, None)
        if value is not None:
            environment[key] = str(_filled_in(value, folder, prepared))
    pace = max(prepared.pace, os.getloadavg()[0] / (os.cpu_count() or 1))  # others may use the machine, too
    outcome = Outcome(place, folder, state(place), records.rows_below(place), pace=pace)
    return _Running(forked(_be, case, arguments, environment, outcome), outcome, limit * pace)


def state(place: Path) -> State:
    """All files below a folder; links are not followed."""
    found: State = {}
    for top, folders, names in os.walk(place):
        if top == str(place):
            folders[:] = [name for name in folders if name != "out"]
        for name in [*folders, *names]:
            path = os.path.join(top, name)
            with suppress(OSError):
                info = os.lstat(path)
                kind = "folder" if name in folders and not os.path.islink(path) else "file"
                found[path] = (kind, info.st_size * (kind == "file"), info.st_mtime_ns * (kind == "file"))
    return found


def _be(case: Case, arguments: list[str], environment: Mapping[str, str], outcome: Outcome) -> None:
    """Become the command, in a process that was forked for it."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(outcome.folder)
    _redirect(case, outcome.place / "out")
    module = f"experiments.{case.command}"
    if case.fresh:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606
    become(module, arguments, outcome.folder, environment)


def _redirect(case: Case, out: Path) -> None:
    """Give the process the descriptors of a command, and Python's files on them."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    opened = [os.open(os.devnull, os.O_RDONLY), *(os.open(out / name, flags) for name in ("stdout", "stderr"))]
    for wanted, descriptor in enumerate(opened):
        os.dup2(descriptor, wanted)
    os.closerange(3, 4096)
    python = {
        "stdin": io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8"),
        "stdout": io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8"),
        "stderr": io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True),
    }
    for number, (name, file) in enumerate(python.items()):
        if number in case.closed:
            os.close(number)
        for known in (name, f"__{name}__"):
            setattr(sys, known, None if number in case.closed else file)


@dataclass
class _Running:
    """A case that is being run."""

    pid: int
    outcome: Outcome
    limit: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()

    def poll(self) -> Outcome | None:
        """The outcome, if the case has ended; it is stopped if it takes too long or too much memory."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        taken = time.monotonic() - self._began
        if pid == 0:
            if taken > self.limit:
                self.outcome.stopped = f"did not end in {taken:.0f} s"
            elif _resident(self.pid) > MEMORY:
                self.outcome.stopped = f"took {_resident(self.pid) / 1e9:.1f} GB"
            if self.outcome.stopped:
                os.killpg(self.pid, signal.SIGKILL)
                self.limit = float("inf")
            return None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left
        self.outcome.status = os.waitstatus_to_exitcode(status)
        self.outcome.seconds, self.outcome.memory = taken, usage.ru_maxrss * 1024
        self.outcome.left = self._left()
        return self.outcome

    def finished(self) -> Outcome:
        """Wait for the outcome."""
        while not (outcome := self.poll()):
            time.sleep(0.01)
        return outcome

    def _left(self, patience: float = 5.0) -> int:
        """How many processes with this case's environment do not end."""
        end = time.monotonic() + patience
        while (left := _with_variable(str(self.outcome.canary))) and time.monotonic() < end:
            time.sleep(0.1)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        return len(left)


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _with_variable(value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(files.CANARY) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
