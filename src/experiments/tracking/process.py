"""A process that keeps a record: what it is told through a pipe, it carries out in order.

MLflow takes seconds to import, a store may be slow, and a killed process cannot say that it was killed. So a record is
kept by a second process. It imports MLflow while the first one imports TensorFlow, and when that one dies without a
word, it says so in the record.
"""

import atexit
import contextlib
import importlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection
from types import ModuleType
from typing import Any

import psutil

from experiments.config import RunFailed
from experiments.tracking.store import reason, redact


class RecordingProcess:
    """The other side of a record: calls of its methods go there through a pipe.

    Args:
        connection: To it. See `start` and `wait_for_orders`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked = 0  # so many answers were asked for; each has the number of its question
        atexit.register(self._connection.close)  # or Python, before it leaves, waits for the process that waits for us

    def send(self, method: str, *arguments: Any) -> None:
        """Have a method called. What goes wrong there is known at the next `call`."""
        self._send(method, arguments, number=0)

    def call(self, method: str, *arguments: Any) -> Any:
        """Have a method called, wait, and return what it returns.

        Raises:
            RunFailed: It, or something that was sent before it, failed.
        """
        number = self._ask(method, arguments)
        while True:
            answered, reply = self._receive()
            if isinstance(reply, Failure):
                raise RunFailed(reply)
            if answered == number:  # others are what an interrupted call did not wait for
                return reply

    def end(self, *arguments: Any) -> tuple[Any, "Failure"]:
        """Have the record ended, whatever went wrong before; return what that returns, and the first failure, if any.

        Raises:
            RunFailed: The other side is gone.
        """
        number, failure = self._ask("end", arguments), Failure()
        while True:
            answered, reply = self._receive()
            if isinstance(reply, Failure):
                failure = failure or reply
            if answered == number:
                self.close()
                return reply, failure

    def close(self) -> None:
        """Let the other side end. A record that was not ended is abandoned."""
        atexit.unregister(self._connection.close)
        self._connection.close()

    def raise_failure(self) -> None:
        """Raise what has gone wrong so far, if anything has."""
        if self._connection.poll() and isinstance(reply := self._receive()[1], Failure):
            raise RunFailed(reply)

    def _ask(self, method: str, arguments: tuple[Any, ...]) -> int:
        self._asked += 1
        self._send(method, arguments, self._asked)
        return self._asked

    def _send(self, method: str, arguments: tuple[Any, ...], number: int) -> None:
        try:
            self._connection.send((method, arguments, number))
        except OSError as error:
            while not isinstance(words := self._receive()[1], Failure):
                pass
            raise RunFailed(words) from error

    def _receive(self) -> tuple[int, Any]:
        try:
            answered, reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RunFailed("the run could not be recorded: the recording process is gone") from error
        return answered, reply


class Failure(str):
    """What went wrong in the recording process."""


def start(uri: str, record: str) -> Connection:
    """Start a recording process; where MLflow is imported already, and so there is nothing to wait for, a thread.

    It imports MLflow at once, and touches the store when it is first told something.

    Args:
        uri: The store.
        record: The class, by module and name, whose methods are called; only the other side imports it.
    """
    ours, other_end = multiprocessing.Pipe()
    if "mlflow" in sys.modules:
        threading.Thread(target=_serve, args=(other_end, uri, record), daemon=True).start()
        return ours
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("spawn", force=True)  # joblib's own cannot be handed down
    with without_main(), _ignoring_interrupts():
        context = multiprocessing.get_context("spawn")
        context.Process(target=_serve, args=(other_end, uri, record, True), daemon=True).start()
    other_end.close()
    return ours


def wait_for_orders(address: str) -> None:
    """Be a recording process that was forked before it is known what for.

    Args:
        address: Of the socket where somebody tells the arguments of `start`.
    """
    with contextlib.suppress(OSError, EOFError):  # nobody does
        connection = Client(address, "AF_UNIX")
        uri, record = connection.recv()
        _serve(connection, uri, record, own_process=True)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Start processes that do not import the program's main module: it is not needed there, and may have changed."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even during their imports."""
    if threading.current_thread() is not threading.main_thread():  # only that one may change what a signal does
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def stop_idle() -> None:
    """End the recording processes of our own that were told nothing: their imports need not end first."""
    for process in multiprocessing.active_children():
        process.terminate()  # the others ignore it


def process_name(pid: int) -> str:
    """A process's number and when it started, by which it can be told from a later one with the same number."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"


def _serve(connection: Connection, uri: str, record_class: str, own_process: bool = False) -> None:
    """Carry out what arrives, in order, until the record has ended or the other side is gone.

    What goes wrong, the record is told, too: it must not end as if nothing had been lost.
    """
    if own_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; only the trainer decides what it means
    module, _, name = record_class.partition(".")
    method = ""
    try:
        record = getattr(importlib.import_module(f"experiments.tracking.{module}"), name)(uri, own_process)
    except Exception as error:
        _answer(connection, 0, _failure(error))
        return
    while method not in ("end", "abandon"):
        try:
            method, arguments, number = connection.recv()
        except (EOFError, OSError):  # the other side is gone, perhaps in the middle of a word
            method, arguments, number = "abandon", (), 0
        if own_process:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until now there was nothing to lose: `stop_idle`
        try:
            reply = getattr(record, method)(*arguments)
        except Exception as error:  # it belongs to the run, which the other side may still end properly
            reply = record.failure = _failure(error)
        if number or isinstance(reply, Failure):
            _answer(connection, number, reply)


def _failure(error: Exception) -> Failure:
    return Failure(f"the run could not be recorded: {redact(reason(error, 400))}")


def _answer(connection: Connection, number: int, reply: Any) -> None:
    with contextlib.suppress(OSError):  # the other side is gone: nobody is left to tell
        connection.send((number, reply))
