"""The process that workers are forked from: it has imported TensorFlow and read the data, once for all of them."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from experiments.config import RunFailed
from experiments.config.fingerprint import source_digest
from experiments.sweeps.jobs import Job
from experiments.tracking import process
from experiments.tracking.process import without_main

# Tells `preload` the digest of our code, the folder of temporary files, and our process.
PRELOAD = "EXPERIMENTS_PRELOAD"
# In that folder: a file that tells it the data sets that runs read, the packages that they trust, and their digest.
WANTED = "wanted.json"
# And a socket where the recording process that it forks is told what to record.
RECORDING = "recording"
_listening: list[socket.socket] = []  # on it, until that was done


def start(jobs: Sequence[Job]) -> None:
    """Start the process that workers are forked from, unless there is one, and tell it what jobs need; do not wait.

    Raises:
        RunFailed: There is no place for its socket.
    """
    begin()
    trust = sorted({package for job in jobs for package in job.config.trust})
    wanted = {
        "trust": trust,
        "code": source_digest(trust),
        "data": [json.loads(text) for text in {job.config.data.model_dump_json() for job in jobs}],
    }
    unfinished = Path(util.get_temp_dir(), "unfinished")
    unfinished.write_text(json.dumps(wanted))
    unfinished.replace(unfinished.with_name(WANTED))


def begin() -> None:
    """Start that process, unless there is one: it has to import TensorFlow, whatever the jobs will be.

    Raises:
        RunFailed: There is no place for its socket.
    """
    if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
        return
    told = {"code": source_digest([]), "folder": util.get_temp_dir(), "launcher": os.getpid()}
    os.environ[PRELOAD] = json.dumps(told)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.sweeps.preload"])
    folder, listener = util.get_temp_dir(), socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(Path(folder, RECORDING)))
        listener.listen()
        with without_main():
            forkserver.ensure_running()
        _listening.append(listener)
    except OSError as error:  # a path of more than about 100 letters is too long for a socket
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise RunFailed(f"no worker can be started: {folder}: {error}. Set TMPDIR to another, shorter one") from error


def recording_process(uri: str, record: str) -> Connection:
    """Give that process's own recording process something to do; start another one if there is none."""
    while _listening and _is_alive():
        _listening[0].settimeout(0.5)
        with suppress(TimeoutError):  # it is still importing
            connection = Connection(_listening[0].accept()[0].detach())
            _listening.pop().close()
            connection.send((uri, record))
            return connection
    return process.start(uri, record)


def _is_alive() -> bool:
    server: Any = forkserver._forkserver
    return os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def stop() -> None:
    """End that process, in the middle of its imports if need be: to take TensorFlow apart would take seconds."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()
        shutil.rmtree(util.get_temp_dir(), ignore_errors=True)


def forked(target: Callable[..., Any], arguments: tuple[Any, ...]) -> ForkServerProcess:
    """Start a process. If the server is gone, another one is started first."""
    for _ in range(2):
        worker = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
        with without_main(), suppress(EOFError, OSError):
            worker.start()
            return worker
    raise RunFailed("no worker can be started: the process that they are forked from does not stay alive")
