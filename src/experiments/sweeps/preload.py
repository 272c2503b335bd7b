"""Imported by the process that workers are forked from: everything that a run needs, once for all of them.

Nothing of TensorFlow may run here, as its threads do not survive a fork.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import shutil
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import experiments
from experiments import backend, data
from experiments.config import Refused, RunFailed
from experiments.config.fingerprint import source_digest
from experiments.config.schema import Data
from experiments.sweeps.server import PRELOAD, RECORDING, STARTED, WANTED, write_whole
from experiments.tracking.client import import_mlflow, import_what_is_used_late
from experiments.tracking.process import wait_for_orders
from experiments.tracking.provenance import working_tree

# Why no worker can be forked from this process, if so.
trouble: Refused | RunFailed | None = None


def preload() -> None:
    """Import this package as it is now, so that edits to its files cannot reach the runs, and load their data."""
    os.setsid()  # Ctrl-C reaches the launcher only, which decides what it means for the workers
    told = json.loads(os.environ[PRELOAD])
    # For a launcher that is shot; otherwise it removes the folder itself, and shoots us.
    atexit.register(shutil.rmtree, told["folder"], ignore_errors=True)
    try:
        import_mlflow()
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    finally:
        _fork_recording_process(Path(told["folder"], RECORDING))
    backend.import_keras()
    backend.refuse_wrong_flags()
    write_whole(Path(told["folder"], STARTED), [])
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if "tf_xla_persistent_cache" not in flags:
        # What XLA compiles for one run serves the others. It is not kept for later: TensorFlow takes a damaged program
        # for the end of the data.
        os.environ["TF_XLA_FLAGS"] = f'{flags} --tf_xla_persistent_cache_directory="{told["folder"]}"'
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if module.name != __name__:
            importlib.import_module(module.name)
    import_what_is_used_late()
    wanted = _wanted(Path(told["folder"], WANTED), told["launcher"])
    for package in ("mlflow.keras", *wanted["trust"]):
        importlib.import_module(package)
        if backend.is_running():
            raise RunFailed(
                f"{package} runs TensorFlow when it is imported, and its threads do not survive a fork; let a function "
                "do that, or use hydra/launcher=basic"
            )
    if (source_digest([]), source_digest(wanted["trust"])) != (told["code"], wanted["code"]):
        raise RunFailed("source files were edited while the sweep was starting; start it again")
    working_tree()
    for section in wanted["data"]:
        data.preload(Data(**section))


def _fork_recording_process(address: Path) -> None:
    """Fork the process that keeps the record of the sweep: it creates the store while we import TensorFlow."""
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")  # its
    if os.fork() == 0:
        try:
            for descriptor in os.listdir("/dev/fd"):
                if int(descriptor) > 2:
                    with suppress(OSError):  # as long as we held the server's socket, it would seem to live
                        os.close(int(descriptor))
            gc.enable()
            wait_for_orders(str(address))
        finally:
            os._exit(0)


def _wanted(file: Path, launcher: int) -> dict[str, Any]:
    """What the jobs need. The launcher, which may still be looking at them, writes it into a file."""
    while not file.exists():
        if os.getppid() != launcher:
            sys.exit()  # it is gone
        time.sleep(0.01)
    wanted: dict[str, Any] = json.loads(file.read_text())
    return wanted


with backend.imports():  # which also keeps the collector from touching, and so copying, the memory that workers share
    try:
        preload()
    except Exception as failed:  # any other one a worker meets again, and says so in its run
        trouble = failed if isinstance(failed, Refused | RunFailed) else None
        problems = [asdict(problem) for problem in failed.problems] if isinstance(failed, Refused) else []
        write_whole(Path(json.loads(os.environ[PRELOAD])["folder"], STARTED), problems)
