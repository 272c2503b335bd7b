"""The writer process: applies journals to MLflow beside a run or a sweep, and when that has died.

MLflow takes seconds to import, and a store may be slow or away. So a second process imports MLflow while the first one
imports TensorFlow, and follows the journals. They wait for each other twice: for an answer before training, and at the
end. It is in a session of its own: neither Ctrl-C nor a closed terminal reaches it.
"""

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from experiments.tracking import index
from experiments.tracking.delivered import delivered_to
from experiments.tracking.journal import JOURNAL, Event, at_work, is_sweep, opening
from experiments.tracking.lookup import Answer, Question, look_up
from experiments.tracking.summary import summary

T = TypeVar("T")
ANSWER_SECONDS = 10.0  # for which a run waits for the store before it trains
IMPORT_SECONDS = 60.0  # and before that, for MLflow to be imported, on a machine that has much to do
END_SECONDS = 30.0  # and at its end
FOLLOW_SECONDS = 0.5  # between two looks at the journals
LAST_TRIES_SECONDS = 2.0  # for which a store that can take nothing is tried at the end
ORPHAN_SECONDS = 60.0  # for which the processes of a sweep may end their runs when it has died
LAUNCHER_SECONDS = 5.0  # for which the launcher of a killed job may say why it was
STUCK_SECONDS = 120.0  # a writer whose run has ended gives up after so long without progress
LONGEST_PAUSE = 60.0  # between two attempts at a store that can take nothing


class WriterProcess:
    """The writer process of a run or a sweep, as seen from there.

    Args:
        uri: The store.
    """

    _process: "subprocess.Popen[bytes] | None" = None

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._folders = list[Path]()
        self._unanswered = 0
        self._is_ready = False
        self._start()

    def _start(self) -> None:
        """Start a process; it imports MLflow at once, and touches the store when it is asked or has a journal."""
        self._is_ready = False
        self._connection, theirs = Pipe()
        atexit.register(self._connection.close)  # or Python, before it leaves, waits for the process that waits for us
        command = [sys.executable, "-m", "experiments.tracking.process", str(theirs.fileno())]
        with suppress(OSError):  # the system has no more processes: `_send` finds out
            self._process = spawn(command, theirs.fileno())
        theirs.close()
        self._send(self._uri)  # not as an argument: it may hold a password, and everybody can see those

    def ask(self, question: Question) -> None:
        """Have something looked up in the store; do not wait."""
        self._unanswered += self._send(question)

    def answer(self, patience: float = ANSWER_SECONDS) -> Answer:
        """Wait for the answer to the last question."""
        try:
            _ = self._is_ready or self._receive(bool, IMPORT_SECONDS)
            end = time.monotonic() + patience
            while answer := self._receive(Answer, end - time.monotonic()):
                self._unanswered -= 1
                if self._unanswered <= 0:  # else it is one that was no longer waited for
                    return answer
        except (EOFError, OSError):
            return Answer(away="the process that asks it has died")
        return Answer(away=f"it did not answer within {patience:g} seconds")

    def deliver(self, folder: Path) -> None:
        """Have a journal delivered from now on."""
        self._folders.append(folder)
        self._send(folder)

    def finish(self, what: str = "all", patience: float = END_SECONDS) -> str:
        """Wait until all journals were delivered, or the "runs" of a sweep; why they were not, if so.

        What was not delivered may be so later.
        """
        for again in (False, True):
            if again:  # it was killed: another one does what it has left
                self._start()
                for folder in self._folders:
                    self._send(folder)
            with suppress(EOFError, OSError):
                self._connection.send(what)
                if (why := self._receive(str, patience)) is not None:
                    return why
                return f"it takes longer than {patience:g} seconds"
        return "the process that delivers it has died"

    def close(self) -> None:
        """Let the process end: at once if there is nothing to deliver, else when it has done so."""
        atexit.unregister(self._connection.close)
        self._connection.close()
        if not self._folders and self._process:
            self._process.kill()  # in the middle of its imports

    def _receive(self, kind: type[T], patience: float) -> T | None:
        """Wait for something of a kind that the process says; None if it does not."""
        end = time.monotonic() + patience
        while self._connection.poll(max(end - time.monotonic(), 0)):
            said = self._connection.recv()
            self._is_ready |= said is True
            if isinstance(said, kind):
                return said
        return None

    def _send(self, what: Any) -> bool:
        try:
            self._connection.send(what)
            return True
        except OSError:  # it has died
            return False


def spawn(command: Sequence[str], descriptor: int) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, with one open file descriptor."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, pass_fds=[descriptor], start_new_session=True
    )


def process_name(pid: int) -> str:
    """A process's number and when it started, by which it can be told from a later one with the same number."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"


def main(descriptor: int) -> None:
    """Be a writer process: take orders from a connection, and follow the journals that are named there."""
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        uri = connection.recv()
        from experiments.tracking.client import import_mlflow

        import_mlflow()
        following = _Following(connection, uri)
        following.reply(True)  # the time that the store has for its answer begins
        following.follow()
    os._exit(0)  # there is nothing to clean up


class _Following:
    """Follows journals, and answers, until the other side is gone and everything was delivered."""

    def __init__(self, connection: Connection, uri: str) -> None:
        from experiments.tracking.writer import Writer

        self._connection, self._uri, self._writer = connection, uri, Writer(uri)
        self._bytes: dict[Path, int] = {}  # of each journal, how many were delivered
        self._incomplete = list[Path]()  # those that were not delivered whole
        self._openings: dict[Path, Event] = {}  # the first events of the journals
        self._opened = 0
        self._again = 0.0  # when a store that could take nothing is tried again
        self._pause = 0.5

    def follow(self) -> None:
        """Do so."""
        from experiments.tracking.client import import_what_is_used_late

        with suppress(EOFError, OSError):
            self._take_orders()  # a run waits for its answer, and for nothing that is imported later
            import_what_is_used_late()
            while True:
                if time.monotonic() >= self._again:
                    self._deliver(close=False)
                self._take_orders()
        self._end()

    def _take_orders(self) -> None:
        """Do what the other side asks for, until it has asked for nothing for a moment.

        Raises:
            EOFError: It is gone.
        """
        while self._connection.poll(FOLLOW_SECONDS):
            self._take(self._connection.recv())

    def _take(self, what: Any) -> None:
        if isinstance(what, Path):
            self._add(what)
        elif isinstance(what, Question):
            self.reply(look_up(self._uri, what))
        else:
            self.reply(self._finish(LAST_TRIES_SECONDS, but_sweeps=what == "runs"))

    def reply(self, what: Answer | str | bool) -> None:
        """Tell the other side. If it is gone, it may have named journals before."""
        with suppress(OSError):
            self._connection.send(what)

    def _deliver(self, *, close: bool) -> str:
        """Deliver what is new; why the store could take nothing, if so."""
        from experiments.tracking.failures import Unavailable

        if self._opened != self._writer.store.opened:  # its file is another one now: all of it again
            self._opened, self._bytes = self._writer.store.opened, dict.fromkeys(self._bytes, -1)
            self._incomplete = list(self._bytes)
            for folder in self._incomplete:
                if uuid := opening(folder).get("uuid"):
                    index.add_waiting(uuid, folder)
        self._find_runs_of_sweeps()
        for folder in list(self._incomplete):
            if _size(folder) == self._bytes[folder] and not close:
                continue
            try:
                state = self._writer.deliver(folder, close=close)
            except Unavailable as error:
                self._again = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                return str(error)
            self._pause = 0.5
            self._bytes[folder] = state.bytes
            if state.complete or not folder.is_dir():
                self._incomplete.remove(folder)
        return ""

    def _find_runs_of_sweeps(self) -> None:
        """Follow the journals of the runs of those sweeps that are followed."""
        waiting = index.waiting()
        for folder in {*self._bytes, *waiting} - self._openings.keys():
            if opened := opening(folder):
                self._openings[folder] = opened
        sweeps = {self._openings[folder]["uuid"] for folder in self._bytes if self._is_sweep(folder)}
        for folder in waiting if sweeps else ():
            if folder not in self._incomplete and self._openings.get(folder, {}).get("parent") in sweeps:
                self._add(folder)

    def _is_sweep(self, folder: Path) -> bool:
        return is_sweep(self._openings.get(folder, {}))

    def _add(self, folder: Path) -> None:
        self._bytes[folder] = -1
        self._incomplete.append(folder)

    def _finish(self, patience: float, *, but_sweeps: bool = False) -> str:
        """Deliver all that there is; why that was not possible, if so. Sweeps may yet go on."""
        end = time.monotonic() + patience
        while True:
            why = self._deliver(close=True)
            left = [folder for folder in self._incomplete if not (but_sweeps and self._is_sweep(folder))]
            if not left or (why and time.monotonic() > end):
                return why
            if time.monotonic() > end + patience:
                troubles = (delivered_to(folder, self._writer.name).trouble for folder in left)
                return next(filter(None, troubles), "another process is at work on it")
            time.sleep(FOLLOW_SECONDS)

    def _end(self) -> None:
        """The other side is gone, perhaps killed: its workers notice, and end their runs first."""
        threading.Thread(target=self._end_when_stuck, daemon=True).start()
        end = time.monotonic() + ORPHAN_SECONDS
        while time.monotonic() < end and any(map(at_work, self._incomplete)):
            time.sleep(FOLLOW_SECONDS)
        jobs = [folder for folder in self._incomplete if self._openings.get(folder, {}).get("parent")]
        end = time.monotonic() + LAUNCHER_SECONDS
        while time.monotonic() < end and any(summary(folder).status == "RUNNING" for folder in jobs):
            time.sleep(FOLLOW_SECONDS)
        self._finish(LAST_TRIES_SECONDS)
        self._writer.close()

    def _end_when_stuck(self) -> None:
        """Leave what is left to `sync`, which could not have it otherwise."""
        applied, since = self._writer.applied, time.monotonic()
        while time.monotonic() - since < STUCK_SECONDS:
            time.sleep(1)
            if applied != self._writer.applied:
                applied, since = self._writer.applied, time.monotonic()
        os._exit(1)


def _size(folder: Path) -> int:
    try:
        return (folder / JOURNAL).stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
