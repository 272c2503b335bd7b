"""The writer process: applies journals to MLflow beside a run or a sweep, and when that has died.

MLflow takes seconds to import, and a store may be slow or away. So a second process imports MLflow while the first one
imports TensorFlow, and follows the journals. They wait for each other twice: for an answer before training, and at the
end. It is in a session of its own: neither Ctrl-C nor a closed terminal reaches it.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from experiments.tracking.lookup import Answer, Question, look_up, open_to_read

T = TypeVar("T")
ANSWER_SECONDS = 10.0  # longest wait for the store before a run trains
IMPORT_SECONDS = 60.0  # longest wait before that for MLflow to be imported, on a busy machine
END_SECONDS = 30.0  # longest wait for the store at the end of a run


class WriterProcess:
    """The writer process of a run or a sweep, as seen from there.

    Args:
        uri: The store.
    """

    _process: "subprocess.Popen[bytes] | None" = None

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._folders = list[Path]()
        self._unanswered = self._finishes = 0
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
                self._finishes += 1
                self._connection.send((self._finishes, what))
                end = time.monotonic() + patience
                while finished := self._receive(tuple, end - time.monotonic()):
                    if finished[0] == self._finishes:  # else it is one that was no longer waited for
                        return str(finished[1])
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
            self._unanswered -= isinstance(said, Answer)
            if isinstance(said, kind):
                return said
        return None

    def _send(self, what: Any) -> bool:
        try:
            self._connection.send(what)
            return True
        except OSError:  # it has died
            return False


class Reader(WriterProcess):
    """What a dry run has instead: it asks the store, in this process, and delivers nothing."""

    def _start(self) -> None:
        self._question = Question()

    def ask(self, question: Question) -> None:
        """Note what is to be looked up."""
        self._question = question

    def answer(self, patience: float = ANSWER_SECONDS) -> Answer:
        """Look it up, however long that takes."""
        return look_up(self._uri, self._question, open_to_read)

    def deliver(self, folder: Path) -> None:
        """Deliver nothing."""

    def close(self) -> None:
        """There is nothing to close."""


def spawn(command: Sequence[str], descriptor: int) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, with one open file descriptor."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, pass_fds=[descriptor], start_new_session=True
    )


def process_name(pid: int) -> str:
    """A process's number and when it started, which a later one with the same number does not have."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"


def main(descriptor: int) -> None:
    """Be a writer process: take orders from a connection, and follow the journals that are named there."""
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        uri = connection.recv()
        from experiments.tracking.client import import_mlflow

        import_mlflow()
        from experiments.tracking.following import Following

        following = Following(connection, uri)
        following.reply(True)  # the time that the store has for its answer begins
        following.follow()
    os._exit(0)  # there is nothing to clean up


if __name__ == "__main__":
    main(int(sys.argv[1]))
