"""Imported by the process that workers are forked from: everything that a run needs, once for all of them.

Nothing of TensorFlow may run here, as its threads do not survive a fork.
"""

import atexit
import importlib
import json
import os
import pkgutil
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import experiments
from experiments import data
from experiments.config import Refused, RunFailed
from experiments.config.fingerprint import source_digest
from experiments.config.schema import Data
from experiments.engine import backend
from experiments.sweeps.server import PRELOAD, STARTED
from experiments.system import imports
from experiments.tracking.provenance import environment, working_tree

# Modules that only the launcher needs; they import Optuna, and Ray, which may not be installed.
OF_LAUNCHER = ("experiments.sweeps.executors.", "experiments.sweeps.proposers.", "experiments.sweeps.search")
# Why no worker can be forked from this process, if so.
trouble: Refused | RunFailed | None = None


def preload() -> None:
    """Import this package as it is now, so that edits to its files cannot reach the runs, and load their data."""
    os.setsid()  # Ctrl-C reaches the launcher only, which decides what it means for the workers
    wanted = json.loads(os.environ[PRELOAD])
    # For a launcher that was killed. Otherwise it kills this process, and removes the folder itself.
    atexit.register(shutil.rmtree, wanted["folder"], ignore_errors=True)
    imports.import_keras()
    backend.refuse_wrong_flags()
    _say([])
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if "tf_xla_persistent_cache" not in flags:
        # What XLA compiles for one run serves the others. It is not kept for later: TensorFlow takes a damaged program
        # for the end of the data.
        os.environ["TF_XLA_FLAGS"] = f'{flags} --tf_xla_persistent_cache_directory="{wanted["folder"]}"'
    for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
        if module.name != __name__ and not module.name.startswith(OF_LAUNCHER):
            importlib.import_module(module.name)
    for package in wanted["trust"]:
        importlib.import_module(package)
        if backend.is_running():
            raise RunFailed(
                f"{package} runs TensorFlow when it is imported, and its threads do not survive a fork; let a function "
                "do that, or use hydra/launcher=basic"
            )
    if [source_digest([]), source_digest(wanted["trust"])] != wanted["code"]:
        raise RunFailed("source files were edited while the sweep was starting; start it again")
    working_tree()
    environment()
    for section, task in wanted["data"]:
        data.preload(Data.model_validate_json(section), wanted["trust"], task)


def _say(problems: list[dict[str, Any]]) -> None:
    """Write what is wrong with the user's settings into the file that the launcher waits for."""
    file = Path(json.loads(os.environ[PRELOAD])["folder"], STARTED)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(problems))
    unfinished.replace(file)


with imports.imports():  # which also keeps the collector from touching, and so copying, the memory that workers share
    try:
        preload()
    except Exception as failed:  # a worker runs into any other error again and reports it in its run
        trouble = failed if isinstance(failed, Refused | RunFailed) else None
        problems = [asdict(problem) for problem in failed.problems] if isinstance(failed, Refused) else []
        _say(problems)
