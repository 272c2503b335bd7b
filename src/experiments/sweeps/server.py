"""The process that workers are forked from: it has imported TensorFlow and read the data, once for all of them."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, util
from multiprocessing.context import ForkServerProcess
from typing import Any

from experiments.config import RunFailed
from experiments.config.fingerprint import source_digest
from experiments.sweeps.jobs import Job
from experiments.tracking.process import without_main

# Tells `preload` the data sets that runs read, the packages that they trust, the digest of all code, and the folder of
# temporary files.
PRELOAD = "EXPERIMENTS_PRELOAD"


def start(jobs: Sequence[Job]) -> None:
    """Start the process that workers are forked from, unless there is one; do not wait for its imports.

    Raises:
        RunFailed: There is no place for its socket.
    """
    trust = sorted({package for job in jobs for package in job.config.trust})
    wanted = {
        "trust": trust,
        "code": source_digest(trust),
        "data": [json.loads(text) for text in {job.config.data.model_dump_json() for job in jobs}],
        "folder": util.get_temp_dir(),
    }
    os.environ[PRELOAD] = json.dumps(wanted)
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if "tf_xla_persistent_cache" not in flags:
        # What XLA compiles for one run serves the others. It is not kept for later: TensorFlow takes a damaged program
        # for the end of the data.
        os.environ["TF_XLA_FLAGS"] = f'{flags} --tf_xla_persistent_cache_directory="{util.get_temp_dir()}"'
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.sweeps.preload"])
    try:
        with without_main():
            forkserver.ensure_running()
    except OSError as error:  # a path of more than about 100 letters is too long for a socket
        folder = util.get_temp_dir()
        shutil.rmtree(folder)
        raise RunFailed(f"no worker can be started: {folder}: {error}. Set TMPDIR to another, shorter one") from error


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
        process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
        with without_main(), suppress(EOFError, OSError):
            process.start()
            return process
    raise RunFailed("no worker can be started: the process that they are forked from does not stay alive")
