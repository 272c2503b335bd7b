"""The process that workers are forked from: it has imported TensorFlow and read the data, once for all of them."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, util
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from experiments.config import Problem, Refused, RunFailed
from experiments.config.fingerprint import source_digest
from experiments.sweeps.jobs import Job

# Environment variable that holds what the jobs need, for `preload`: see `start`.
PRELOAD = "EXPERIMENTS_PRELOAD"
# A file in which that process says what is wrong with the settings of TensorFlow and Keras, as a list of problems.
STARTED = "started.json"


def start(jobs: Sequence[Job]) -> None:
    """Start the process that workers are forked from, unless there is one; do not wait.

    Raises:
        RunFailed: There is no place for its socket.
    """
    if _server():
        return
    trust = sorted({package for job in jobs for package in job.config.trust})
    wanted = {
        "folder": str(_folder()),
        "trust": trust,
        "code": [source_digest([]), source_digest(trust)],
        "data": sorted({(job.config.data.model_dump_json(), job.config.task.name) for job in jobs}),
    }
    os.environ[PRELOAD] = json.dumps(wanted)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.sweeps.preload"])
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which it inherits: Ctrl-C is for this process only
    try:
        with without_main():
            forkserver.ensure_running()
    except OSError as error:  # a path of more than about 100 letters is too long for a socket
        shutil.rmtree(_folder(), ignore_errors=True)
        raise RunFailed(
            f"no worker can be started: {wanted['folder']}: {error}. Set TMPDIR to another, shorter one"
        ) from error
    finally:
        signal.signal(signal.SIGINT, handler)


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
    file, server = _folder() / STARTED, _server()
    while not file.exists() and server and server.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    if file.exists() and (problems := json.loads(file.read_text())):
        raise Refused([Problem(**problem) for problem in problems])


def _server() -> psutil.Process | None:
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                return child
    return None


def _folder() -> Path:
    """Folder of multiprocessing's sockets; removed only at a normal exit, which our processes rarely make."""
    folder = Path(util.get_temp_dir())
    folder.mkdir(0o700, exist_ok=True)
    return folder


def stop() -> None:
    """End that process, in the middle of its imports if need be: to take TensorFlow apart would take seconds."""
    if server := _server():
        server.kill()
    if PRELOAD in os.environ:  # it was started, and may have been killed since
        shutil.rmtree(_folder(), ignore_errors=True)


def forked(target: Callable[..., Any], arguments: tuple[Any, ...]) -> ForkServerProcess:
    """Start a process. If the server is gone, another one is started first."""
    for _ in range(2):
        worker = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
        with without_main(), suppress(EOFError, OSError):
            worker.start()
            return worker
    raise RunFailed("no worker can be started: the process that they are forked from does not stay alive")
