"""``hydra.sweeper.dry_run=true``: what it says, and that it leaves everything as it was."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.sweeps.processes import QUICK, sweep

RunCli = Callable[..., CompletedProcess[str]]
DRY = ("-m", "hydra.sweeper.dry_run=true", *QUICK, "data.validation_size=0.2")
LAST = "a dry run: nothing was started, and nothing recorded"
SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.seeds=[1,2]", "epochs=20")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two runs."""
    folder = tmp_path_factory.mktemp("sweep")
    status, output = sweep(folder, *QUICK, "data.validation_size=0.2", "optimizer=adam,sgd")
    assert status == 0, output
    return folder


def everything(folder: Path) -> dict[str, str]:
    """All that is in a folder, with digests of the files."""
    found = [file for file in folder.rglob("*") if file.name != "out"]
    return {str(file): hashlib.sha256(file.read_bytes() if file.is_file() else b"").hexdigest() for file in found}


@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_a_grid_says_which_runs_are_kept_and_how_long_the_others_take(
    done: Path, fork_cli: RunCli, launcher: str
) -> None:
    before = everything(done)
    words = ("optimizer=adam,sgd,rmsprop", "resume=true", f"hydra/launcher={launcher}")
    ended = fork_cli(*DRY, *words, cwd=done)
    assert (ended.returncode, ended.stderr) == (0, "")
    head, *runs, line, time, last = ended.stdout.splitlines()
    assert head == "3 runs, ranked by val_accuracy"
    assert [re.sub("run [0-9a-f]{32}$", "run ID", run) for run in runs] == [
        "1  optimizer=adam  kept: run ID",
        "2  optimizer=sgd  kept: run ID",
        "3  optimizer=rmsprop",
    ]
    assert line.startswith("resume: 2 kept, 1 never ran: rerun")
    how = {"pool": "1 at a time", "basic": "one after the other"}[launcher]
    what = f"for 1 run, {how}, by 2 earlier runs on the same data, with the same model"
    assert re.fullmatch(rf"time: about 0:00:\d\d {what}", time)
    assert last == LAST
    assert everything(done) == before


def test_an_empty_folder_stays_empty(fork_cli: RunCli, tmp_path: Path) -> None:
    ended = fork_cli(*DRY, "seed=0,1", "resume=true")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[1:3] == ["1  seed=0", "2  seed=1"]
    assert lines[3:] == [
        "resume: 0 kept, 2 never ran: rerun",
        "time: there is no earlier run on the same data to estimate from",
        LAST,
    ]
    assert not list(tmp_path.iterdir())


def test_runs_on_other_data_say_nothing_of_the_time(done: Path, fork_cli: RunCli) -> None:
    ended = fork_cli(*DRY, "data.limit=200,300", "optimizer=sgd", cwd=done)
    assert "time: there is no earlier run on the same data to estimate 1 of the 2 runs from" in ended.stdout
    ended = fork_cli(*DRY, "model.layer_sizes=[16]", "seed=0,1", cwd=done)
    assert ended.stdout.splitlines()[-2].endswith("by 2 earlier runs on the same data"), "of another model"


def test_a_search_says_what_it_would_choose_from(done: Path, fork_cli: RunCli) -> None:
    before = everything(done)
    words = (*SEARCH, "optimizer=adam,sgd", "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))", "resume=true")
    ended = fork_cli(*DRY, *words, cwd=done)
    assert (ended.returncode, ended.stderr) == (0, "")
    *lines, time, last = ended.stdout.splitlines()
    assert lines == [
        "at most 6 trials, ranked by val_accuracy",
        "a space of infinitely many points, the better half run with the seeds 1, 2:",
        "  optimizer                adam,sgd",
        "  optimizer.learning_rate  tag(log,interval(1e-3,1e-1))",
        "sampler tpe, pruner percentile, for the highest val_accuracy",
        "a config that has finished before is not run again, and not counted",
        "resume: no earlier search of this command: it begins anew",
    ]
    assert " for at most 12 runs, " in time
    assert last == LAST
    assert everything(done) == before
    finite = fork_cli(*DRY, *SEARCH, "optimizer=adam,sgd", "batch_size=16,32,64", cwd=done)
    assert finite.stdout.splitlines()[1].startswith("a space of 6 points, ")


def test_what_cannot_run_is_refused_all_the_same(fork_cli: RunCli, tmp_path: Path) -> None:
    wrong = fork_cli(*DRY, "optimizer=adam,adma")
    assert wrong.returncode == 2
    batch = fork_cli(*DRY, *SEARCH, "optimizer=adam,sgd", "hydra/launcher=basic")
    assert batch.returncode == 2
    assert "takes all jobs as one batch" in batch.stderr
    single = fork_cli(*DRY[1:])
    assert single.returncode == 2
    assert single.stderr == "error: hydra.sweeper.dry_run: is for sweeps: a single run would train; add -m\n"
    no_switch = fork_cli(*DRY, "seed=0,1", "hydra.sweeper.dry_run=perhaps")
    assert no_switch.stderr.startswith("error: hydra.sweeper.dry_run: got perhaps, expected ")
    assert not list(tmp_path.iterdir())
