"""Parts that a user adds: a proposer, an executor, a callback and data of a package of their own, and a task."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.prepared import ROOT

# Trains longer and longer until that no longer helps: what is next follows from the result before.
LONGER = """
from experiments.config.schema import Count, Section
from experiments.sweeps.proposers import Proposer


class Settings(Section):
    most: Count = 10


class Longer(Proposer):
    follows_results = True

    def __init__(self, overrides, most, prepare):
        self._most, self._prepare, self._results, self._waits = most, prepare, [], False
        self._overrides = overrides
        super().__init__([self._job(1)], overrides, {"epochs": f"1 to {most}"}, None)

    def _job(self, epochs):
        return self._prepare([[*self._overrides, f"epochs={epochs}"]], first=epochs)[0]

    def next(self):
        results = self._results
        if self._waits or len(results) == self._most or (len(results) > 1 and results[-1] <= results[-2]):
            return None
        self._waits = True
        return self._job(len(results) + 1)

    def tell(self, job, outcome):
        super().tell(job, outcome)
        self._results.append(outcome.objective)
        self._waits = False


def propose(settings, overrides, loader, prepare):
    return Longer(overrides, settings.most, prepare)
"""

# Runs the jobs one after the other in a process that imports everything anew.
SPAWNED = """
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from experiments.sweeps import executors
from experiments.sweeps.executors import Ended
from experiments.sweeps.worker import carry_out


class Settings(executors.Settings):
    pass


def quiet():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


class Spawned:
    size = threads = 1

    def __init__(self, launcher):
        self._context, self._running = launcher.hydra_context, {}
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), quiet)

    def prepare(self, jobs):
        pass

    def wait_until_ready(self):
        pass

    def has_room(self):
        return not self._running

    def start(self, job, parent):
        settings = {"parent": parent, "threads": self.threads}
        future = self._pool.submit(carry_out, "experiments.run:run", job, self._context, settings)
        self._running[future] = job, time.monotonic()

    def news(self, seconds):
        ended, _ = wait(self._running, seconds, return_when=FIRST_COMPLETED)
        return [self._ended(future) for future in ended]

    def _ended(self, future):
        job, started = self._running.pop(future)
        return Ended(job, time.monotonic() - started, 0, future.result())

    def stop(self):
        return []

    def close(self):
        self._pool.shutdown(cancel_futures=True)


def executor(settings, launcher):
    return Spawned(launcher)
"""

CALLBACKS = """
from keras.callbacks import Callback


class CountEpochs(Callback):
    def on_epoch_end(self, epoch, logs=None):
        with open("epochs.txt", "a") as file:
            print(epoch + 1, file=file)
"""

DATA = """
def load():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:200], y[:200]), (x[200:260], y[200:260])
"""

# Regression of counts: what is predicted is a whole number.
COUNTS = '''
"""Counts: whole numbers of at least 0."""

from experiments.task.regression import *
from experiments.task import regression


def predictions(outputs, activation):
    return regression.predictions(outputs, activation).round().clip(0)


def describe(train, outputs):
    return f"counts up to {train.max():.0f}"
'''

Run = Callable[..., CompletedProcess[str]]
QUICK = ("data.validation_size=0.2", "model.layer_sizes=[8]")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the user's own, and config files that name its parts; return the folder that both are in."""
    package = tmp_path / "own" / "mypackage"
    package.mkdir(parents=True)
    modules = {"__init__": "", "data": DATA, "callbacks": CALLBACKS, "longer": LONGER, "spawned": SPAWNED}
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    files = {
        "sweeper/longer": (
            "_target_: hydra_plugins.experiments_sweeps.ProposerSweeper\nproposer: mypackage.longer\nmost: 3\n"
        ),
        "launcher/spawned": (
            "_target_: hydra_plugins.experiments_sweeps.ExecutorLauncher\nexecutor: mypackage.spawned\n"
            "retries: 0\nmax_failures: null\n"
        ),
    }
    for name, text in files.items():
        file = tmp_path / "own" / "conf" / "hydra" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path / "own"


def test_a_proposer_and_an_executor_of_ones_own(fork_cli: Run, package: Path, tmp_path: Path) -> None:
    folder = str(package / "conf")
    command = ("-m", "--config-dir", folder, "hydra/sweeper=longer", "hydra/launcher=spawned", "trust=[mypackage]")
    own = ("data=custom", "data.function=mypackage.data.load", "+callbacks.count.name=mypackage.callbacks.CountEpochs")
    dry = fork_cli(*command, *own, *QUICK, "+hydra.sweeper.dry_run=true", PYTHONPATH=str(package))
    assert dry.stdout.splitlines()[0] == "runs, ranked by val_accuracy", dry.stderr
    ended = fork_cli(*command, *own, *QUICK, "batch_size=16", PYTHONPATH=str(package))
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "runs, one at a time, ranked by val_accuracy"
    assert [line.split()[0] for line in lines[1:4]] == ["[1]", "[2]", "[3]"]
    assert (tmp_path / "epochs.txt").read_text().split() == ["1", "1", "2", "1", "2", "3"]
    again = fork_cli(*command, *own, *QUICK, "batch_size=16", "resume=true", PYTHONPATH=str(package))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("known") == 3
    assert not [line for line in again.stdout.splitlines() if " s  val_accuracy" in line], "all three are kept"


@pytest.mark.parametrize(
    ("words", "refusals"),
    [
        (["P=mypackage.longer"], {"P": "got mypackage.longer, a module of a package that is not trusted"}),
        (["P=mypackage.longer", "trust=[amypackages]"], {"P": "a module of a package that is not trusted"}),
        (["P=mypackage.no", "trust=[mypackage]"], {"P": "got mypackage.no, which cannot be imported: ModuleNotFound"}),
        (["P=mypackage.data", "trust=[mypackage]"], {"P": "got mypackage.data, which has no Settings and no"}),
        (["P=mypackage.broken", "trust=[mypackage]"], {"P": "which cannot be imported: ValueError: broken"}),
        (["P=gird"], {"P": "got gird; "}),
        (["P=5"], {"P": "got 5, expected the name of a module; known: "}),
        (["P=null"], {"P": "got None, expected the name of a module"}),
        (["P=.x", "trust=[mypackage]"], {"P": "got .x, expected the name of a module"}),
        (["P=mypackage.longer", "experiment=trusting"], {"trust": "a config file trusts mypackage, but"}),
        (
            ["hydra.launcher.workers=0", "hydra.sweeper.max_runs=x"],
            {"hydra.sweeper.max_runs": "", "hydra.launcher.workers": ""},
        ),
    ],
)
@pytest.mark.parametrize("key", ["hydra.sweeper.proposer", "hydra.launcher.executor"])
def test_what_cannot_be_a_part_is_refused(
    fork_cli: Run, package: Path, key: str, words: list[str], refusals: dict[str, str]
) -> None:
    (package / "mypackage" / "broken.py").write_text("raise ValueError('broken')\n")
    preset = package / "conf" / "experiment" / "trusting.yaml"
    preset.parent.mkdir()
    preset.write_text("# @package _global_\ntrust: [mypackage]\n")
    command = [re.sub("^P(?==)", key, word) for word in words]
    done = fork_cli("-m", "--config-dir", str(package / "conf"), *command, "seed=0,1", PYTHONPATH=str(package))
    assert done.returncode == 2, done.stderr
    found = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(found) == len(refusals)
    for line, (where, what) in zip(found, refusals.items(), strict=True):
        assert line.startswith(where.replace("P", key) + ": ")
        assert what in line


def test_a_batch_launcher_is_refused_where_results_say_what_is_next(fork_cli: Run, package: Path) -> None:
    command = ("-m", "--config-dir", str(package / "conf"), "hydra/sweeper=longer", "hydra/launcher=basic")
    refused = fork_cli(*command, "data=digits", "trust=[mypackage]", PYTHONPATH=str(package))
    assert refused.returncode == 2
    assert "error: hydra/launcher: takes all jobs as one batch" in refused.stderr
    assert "try  hydra/launcher=pool" in refused.stderr


def test_a_task_is_one_module_and_its_file(run_cli: Run, tmp_path: Path) -> None:
    source = tmp_path / "copy"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", source / "conf")
    (source / "src" / "experiments" / "task" / "counts.py").write_text(COUNTS)
    settings = (ROOT / "conf" / "task" / "regression.yaml").read_text()
    (source / "conf" / "task" / "counts.yaml").write_text(settings.replace("name: regression", "name: counts"))
    path = os.pathsep.join([str(source / "src"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    ended = run_cli("data=diabetes", "task=counts", *QUICK, "epochs=2", PYTHONPATH=path)
    assert ended.returncode == 0, ended.stderr
    assert "counts up to" in ended.stdout
    predicted = run_cli("run=latest", "test=0:5", "format=json", module="predict", PYTHONPATH=path)
    assert predicted.returncode == 0, predicted.stderr
    guesses = [guess["prediction"] for guess in json.loads(predicted.stdout)["predictions"]]
    assert len(guesses) == 5
    assert all(guess == round(guess) for guess in guesses)
