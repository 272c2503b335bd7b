"""The process that workers are forked from: it has imported TensorFlow and read the data, once for all of them."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from experiments.config import Problem, Refused, RunFailed
from experiments.config.fingerprint import source_digest
from experiments.sweeps.jobs import Job

# Tells `preload` what the jobs need: see `start`.
PRELOAD = "EXPERIMENTS_PRELOAD"
# A file in which that process says what is wrong with the settings of TensorFlow and Keras, as a list of problems.
STARTED = "started.json"


def start(jobs: Sequence[Job]) -> None:
    """Start the process that workers are forked from, unless there is one; do not wait.

    Raises:
        RunFailed: There is no place for its socket.
    """
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    trust = sorted({package for job in jobs for package in job.config.trust})
    wanted = {
        "folder": _folder(),
        "trust": trust,
        "code": [source_digest([]), source_digest(trust)],
        "data": sorted({(job.config.data.model_dump_json(), job.config.task.name) for job in jobs}),
    }
    os.environ[PRELOAD] = json.dumps(wanted)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.sweeps.preload"])
    asked = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which it inherits: Ctrl-C is for us alone
    try:
        with without_main():
            forkserver.ensure_running()
    except OSError as error:  # a path of more than about 100 letters is too long for a socket
        _remove_folder()
        raise RunFailed(
            f"no worker can be started: {wanted['folder']}: {error}. Set TMPDIR to another, shorter one"
        ) from error
    finally:
        signal.signal(signal.SIGINT, asked)


@contextmanager
def without_main() -> Iterator[None]:
    """Start processes that do not import the program's main module: it is not needed there, and may have changed."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def refuse_unusable() -> None:
    """Wait until that process has imported Keras and tried the flags of the environment: no run starts sooner.

    Raises:
        Refused: It cannot use the flags, or Keras its settings.
    """
    file = Path(_folder(), STARTED)
    while not file.exists() and _is_alive():
        time.sleep(0.01)
    if file.exists() and (problems := json.loads(file.read_text())):
        raise Refused([Problem(**problem) for problem in problems])


def _is_alive() -> bool:
    server: Any = forkserver._forkserver
    with suppress(psutil.Error):
        return bool(psutil.Process(server._forkserver_pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _folder() -> str:
    """Where multiprocessing puts its sockets. It would remove it at the end of a process, which ours rarely reach."""
    settings: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if settings.get("tempdir") is None:
        settings["tempdir"] = tempfile.mkdtemp(prefix="pymp-")
    return str(settings["tempdir"])


def _remove_folder() -> None:
    shutil.rmtree(_folder(), ignore_errors=True)
    multiprocessing.current_process()._config["tempdir"] = None  # type: ignore[attr-defined]


def stop() -> None:
    """End that process, in the middle of its imports if need be: to take TensorFlow apart would take seconds."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        with suppress(OSError):  # it has ended, and removed its socket
            server._stop()
        _remove_folder()


def forked(target: Callable[..., Any], arguments: tuple[Any, ...]) -> ForkServerProcess:
    """Start a process. If the server is gone, another one is started first."""
    for _ in range(2):
        worker = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
        with without_main(), suppress(EOFError, OSError):
            worker.start()
            return worker
    raise RunFailed("no worker can be started: the process that they are forked from does not stay alive")
