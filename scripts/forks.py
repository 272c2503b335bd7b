"""Commands in forks of a process that has imported what they need, which saves each of them the seconds of its imports.

No operation of TensorFlow may run in that process: its threads do not survive a fork.
"""

import atexit
import gc
import importlib
import multiprocessing.util
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.tracking import process


def import_everything() -> None:
    """Import what the commands import."""
    from hydra.core.plugins import Plugins

    import experiments
    from experiments.system.imports import import_keras
    from experiments.tracking import client

    Plugins.instance()  # first, as Hydra imports plugins anew, and ours would be there twice
    client.import_mlflow()
    client.import_what_is_used_late()
    importlib.import_module("experiments.tracking.writer")
    import_keras()
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if not module.name.endswith((".preload", ".__main__")):
            importlib.import_module(module.name)
    importlib.import_module("mlflow.keras")
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    importlib.import_module("sklearn.datasets").load_digits()
    gc.collect()
    gc.freeze()


def forked(function: Callable[..., object], *arguments: object, **options: object) -> int:
    """Call a function in a fork; return its process. Exit status: the function's, where it leaves with one; else 0."""
    _flush()
    if pid := os.fork():
        return pid
    status: object = 1
    try:
        function(*arguments, **options)
        status = 0
    except SystemExit as left:
        status = left.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:  # what Python would do with it
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # it is closed, or its disk is full
            stream.flush()


def become(name: str, arguments: Sequence[str], folder: str | Path, environment: Mapping[str, str]) -> None:
    """Do in this fork what ``python -m NAME``, or ``python FILE``, would do with exactly this environment."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    multiprocessing.util.spawnv_passfds = _fork_instead  # type: ignore[assignment]
    process.spawn = _fork_writer  # type: ignore[assignment]
    gc.enable()
    sys.path[0] = str(folder)
    sys.path[1:1] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place not in sys.path]
    module = sys.modules.get(name)
    sys.argv = [str(module.__file__) if module else name, *arguments]
    if module:
        module.main()
    else:
        runpy.run_path(name, run_name="__main__")


class _Writer:
    """A writer process in a fork, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _fork_writer(command: Sequence[str], descriptor: int) -> _Writer:
    """Stand for the function that starts a writer process."""
    with _ends_wait() as mask:
        return _Writer(forked(_write, descriptor, mask))


def _write(descriptor: int, mask: set[int]) -> None:
    os.setsid()
    _as_a_new_program({descriptor}, mask)
    for number in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    process.main(descriptor)


@contextmanager
def _ends_wait() -> Iterator[set[int]]:
    """Hold back signals until a fork no longer has our handlers; give the mask before."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_a_new_program(descriptors: set[int], mask: set[int]) -> None:
    """Let go of what a new program would not have: open files and handlers of signals."""
    for descriptor in {int(name) for name in os.listdir("/dev/fd")} - descriptors:
        with suppress(OSError):
            os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    atexit._clear()


def _fork_instead(path: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Stand for the function with which multiprocessing starts Python, to fork workers from."""
    option = list(arguments).index("-c")
    with _ends_wait() as mask:
        return forked(_serve, *arguments[option + 1 :], descriptors={*range(3), *descriptors}, mask=mask)


def _serve(code: str, *arguments: str, descriptors: set[int], mask: set[int]) -> None:
    _as_a_new_program(descriptors, mask)
    sys.argv = ["-c", *arguments]
    try:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - multiprocessing's own
    finally:
        atexit._run_exitfuncs()
