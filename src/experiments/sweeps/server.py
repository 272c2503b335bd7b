"""The process that workers are forked from: it has imported TensorFlow and read the data, once for all of them."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

from experiments.config import Problem, Refused, RunFailed
from experiments.config.fingerprint import source_digest
from experiments.sweeps.jobs import Job
from experiments.tracking import process
from experiments.tracking.process import without_main

# Tells `preload` the digest of our code, the folder of temporary files, and our process.
PRELOAD = "EXPERIMENTS_PRELOAD"
# In that folder: a file that tells it the data sets that runs read, the packages that they trust, and their digest.
WANTED = "wanted.json"
# A file in which it says what is wrong with the user's settings of TensorFlow and Keras, as a list of problems.
STARTED = "started.json"
# And a socket where the recording process that it forks is told what to record.
RECORDING = "recording"
_listening: list[socket.socket] = []  # on it, until that was done
# How long that process may take to import MLflow, in seconds, before another one is started instead.
PATIENCE = 60.0


def start(jobs: Sequence[Job]) -> None:
    """Start the process that workers are forked from, unless there is one, and tell it what jobs need; do not wait.

    Raises:
        RunFailed: There is no place for its socket.
    """
    begin()
    if not any(job.config.tracking.enabled for job in jobs):
        _close()
    trust = sorted({package for job in jobs for package in job.config.trust})
    wanted = {
        "trust": trust,
        "code": source_digest(trust),
        "data": [json.loads(text) for text in {job.config.data.model_dump_json() for job in jobs}],
    }
    write_whole(Path(_folder(), WANTED), wanted)


def write_whole(file: Path, content: Any) -> None:
    """Write JSON into a file that another process waits for."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(file)


def begin() -> None:
    """Start that process, unless there is one: it has to import TensorFlow, whatever the jobs will be.

    Raises:
        RunFailed: There is no place for its socket.
    """
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    folder, listener = _folder(), socket.socket(socket.AF_UNIX)
    os.environ[PRELOAD] = json.dumps({"code": source_digest([]), "folder": folder, "launcher": os.getpid()})
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.sweeps.preload"])
    asked = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which it inherits: Ctrl-C is for us alone
    try:
        _listening.append(listener)
        listener.bind(str(Path(folder, RECORDING)))
        listener.listen()
        with without_main():
            forkserver.ensure_running()
    except OSError as error:  # a path of more than about 100 letters is too long for a socket
        _remove_folder()
        raise RunFailed(f"no worker can be started: {folder}: {error}. Set TMPDIR to another, shorter one") from error
    finally:
        signal.signal(signal.SIGINT, asked)


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


def recording_process(uri: str, record: str) -> Connection:
    """Give that process's own recording process something to do; start another one if there is none."""
    end = time.monotonic() + PATIENCE
    while _listening and _is_alive() and time.monotonic() < end:
        _listening[0].settimeout(0.5)
        with suppress(OSError):  # it is still importing, or has just died
            connection = Connection(_listening[0].accept()[0].detach())
            _close()
            connection.send((uri, record))
            return connection
    _close()
    return process.start(uri, record)


def _is_alive() -> bool:
    server: Any = forkserver._forkserver
    with suppress(psutil.Error):
        return bool(psutil.Process(server._forkserver_pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _close() -> None:
    """Let go of the recording process: nobody tells it anything any more, and it ends."""
    while _listening:
        _listening.pop().close()


def _folder() -> str:
    """Where multiprocessing puts its sockets. It would remove it at the end of a process, which ours rarely reach."""
    settings: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if settings.get("tempdir") is None:
        settings["tempdir"] = tempfile.mkdtemp(prefix="pymp-")
    return str(settings["tempdir"])


def _remove_folder() -> None:
    _close()
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
