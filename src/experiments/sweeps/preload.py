"""Imported by the process that workers are forked from: everything that a run needs, once for all of them.

Nothing of TensorFlow may run here, as its threads do not survive a fork.
"""

import atexit
import importlib
import json
import os
import pkgutil
import shutil

import experiments
from experiments import backend, data
from experiments.config import RunFailed
from experiments.config.fingerprint import source_digest
from experiments.config.schema import Data
from experiments.sweeps.server import PRELOAD
from experiments.tracking.client import import_mlflow, import_what_is_used_late
from experiments.tracking.provenance import working_tree

# Why no worker can be forked from this process, if so.
trouble = ""


def preload() -> None:
    """Import this package as it is now, so that edits to its files cannot reach the runs, and load their data."""
    os.setsid()  # Ctrl-C reaches the launcher only, which decides what it means for the workers
    wanted = json.loads(os.environ[PRELOAD])
    # For a launcher that is shot; otherwise it removes the folder itself, and shoots us.
    atexit.register(shutil.rmtree, wanted["folder"], ignore_errors=True)
    backend.import_keras()
    from tensorflow.python.eager import context

    import_mlflow()
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if module.name != __name__:
            importlib.import_module(module.name)
    import_what_is_used_late()
    for package in ("mlflow.keras", *wanted["trust"]):
        importlib.import_module(package)
        if context.context()._initialized:
            raise RunFailed(
                f"{package} runs TensorFlow when it is imported, and its threads do not survive a fork; let a function "
                "do that, or use hydra/launcher=basic"
            )
    if source_digest(wanted["trust"]) != wanted["code"]:
        raise RunFailed("source files were edited while the sweep was starting; start it again")
    working_tree()
    for section in wanted["data"]:
        data.preload(Data(**section))


with backend.imports():  # which also keeps the collector from touching, and so copying, the memory that workers share
    try:
        preload()
    except RunFailed as failed:
        trouble = str(failed)
    except Exception:  # noqa: S110 - a worker meets it again, and says so in its run
        pass
