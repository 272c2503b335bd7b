"""A run that was interrupted goes on, and comes out as the one that never was, to the last bit."""

import gc
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from glob import glob
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest

from experiments.engine.checkpoints import Checkpoints
from experiments.tracking.client import open_store
from tests.composed import Run, names, train
from tests.prepared import Prepared, Started, environment
from tests.sweeps.processes import family

EVERYTHING = (
    "epochs=5",
    "data.validation_size=30",
    "model.dropout=0.3",
    "model.batch_normalization=true",
    "callbacks=[early_stopping,reduce_lr_on_plateau,best_weights,csv_log]",
    "callbacks.early_stopping.patience=1",
    "callbacks.early_stopping.monitor=val_accuracy",
    "callbacks.reduce_lr_on_plateau.patience=1",
)
CASES = {
    **{name: (f"optimizer={name}",) for name in names("optimizer")},
    "everything": EVERYTHING,
    "stops early": (
        *EVERYTHING,
        "callbacks.early_stopping.min_delta=0.9",
        "callbacks.early_stopping.patience=2",
        "epochs=9",
    ),
    "averaged weights": ("optimizer=adam", "optimizer.use_ema=true", "callbacks=swap_ema_weights"),
    "schedule": ("optimizer=adam", "optimizer/schedule=cosine", "optimizer.schedule.warmup_epochs=1"),
    "accumulated gradients": ("optimizer=sgd", "+optimizer.gradient_accumulation_steps=3", "batch_size=20"),
    "half precision": ("optimizer=nadam", "precision=mixed_float16"),
}


# MLflow's and Keras's own, and a CSV log that an interrupt leaves open
pytestmark = [
    pytest.mark.one_version,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training at the beginning of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self._epoch:
            raise KeyboardInterrupt


def resumed(folder: Path, at: int, *overrides: str) -> Run:
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(*overrides, folder=folder, eager=True, checkpoints=Checkpoints(folder), watchers=[Interrupt(at)])
    gc.collect()  # what the interrupt left open
    found = Checkpoints(folder)
    assert found.state is not None
    assert found.state.epochs == at
    return train(*overrides, folder=folder, eager=True, checkpoints=found)


@pytest.mark.parametrize("case", CASES)
def test_the_same_to_the_last_bit(case: str, tmp_path: Path) -> None:
    overrides = ("epochs=2", "model.layer_sizes=[8]", *CASES[case])
    never, again = (
        train(*overrides, folder=tmp_path, eager=True),
        resumed(tmp_path / "run", 2 if "epochs=5" in overrides else 1, *overrides),
    )
    assert {key: list(map(float, values)) for key, values in never.history.items()} == again.history
    assert all(np.array_equal(one, other) for one, other in zip(never.weights, again.weights, strict=True))
    for file in ("epochs.csv", "best.weights.h5"):
        assert (
            (tmp_path / file).is_file()
            == (tmp_path / "run" / file).is_file()
            == (case in ("everything", "stops early"))
        )
    if case == "everything":
        assert (tmp_path / "epochs.csv").read_text() == (tmp_path / "run" / "epochs.csv").read_text()


def test_one_that_had_stopped_early_does_not_train_on(tmp_path: Path) -> None:
    never = train(*CASES["stops early"], folder=tmp_path, eager=True, checkpoints=Checkpoints(tmp_path))
    assert len(never.history["loss"]) < 9
    again = train(*CASES["stops early"], folder=tmp_path, eager=True, checkpoints=Checkpoints(tmp_path))
    assert again.history == {key: list(map(float, values)) for key, values in never.history.items()}
    assert all(np.array_equal(one, other) for one, other in zip(never.weights, again.weights, strict=True))


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    train(folder=tmp_path, eager=True, checkpoints=Checkpoints(tmp_path))
    assert "no checkpoint of epoch 1: " in capsys.readouterr().err


EPOCHS = 24
LONG = [
    "data=digits", f"epochs={EPOCHS}", "batch_size=16", "model.layer_sizes=[600]", "model.dropout=0.2",
    "runtime.xla=false", "runtime.checkpoint_every=1",
]  # fmt: skip


def saved(folder: Path) -> int:
    """Up to which epoch a run is saved. Its record may be behind."""
    found = glob(
        f"{folder}/**/record/checkpoints/epoch_*.npz", recursive=True
    )  # pathlib's fails where a folder vanishes
    return max((int(Path(file).stem[-6:]) for file in found), default=0)


def kill_after(folder: Path, process: Started, epochs: int, everything: bool) -> None:
    """Shoot a process, and those that it started, too, once it has saved so many epochs, and is in the record."""
    wanted = saved(folder) + epochs
    while saved(folder) < wanted or not query(folder, "SELECT 1 FROM runs"):
        assert process.poll() is None, (folder / "out").read_text()
        time.sleep(0.02)
    for member in family(process) if everything else [psutil.Process(process.pid)]:
        member.kill()
    assert process.wait() == -signal.SIGKILL


def query(folder: Path, statement: str) -> list[Any]:
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        return connection.execute(statement).fetchall()
    return []  # there is no store yet


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that two runs of the same config must have in common."""
    own = "key NOT IN ('fit_seconds', 'seconds_per_epoch', 'samples_per_second')"
    points = query(folder, f"SELECT key, step, value FROM metrics WHERE {own} ORDER BY key, step")
    return {"weights": query(folder, "SELECT value FROM tags WHERE key = 'weights.digest'"), "points": points}


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("never")
    done = prepared("experiments.run", *LONG, cwd=folder, env=environment())
    assert "recorded as run" in done.stdout, done.stderr
    found = outcome(folder)
    assert len(found["points"]) == EPOCHS * 2 + 5
    return found


def test_shot_and_resumed(
    never_killed: dict[str, Any],
    tmp_path: Path,
    fork_start: Callable[..., Started],
    fork_cli: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    """First the whole group of processes is shot, then, of the resumed run, the training process alone."""
    (tmp_path / "mlruns").mkdir()
    open_store(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")  # or training ends before it has been created
    kill_after(tmp_path, fork_start(*LONG), 3, everything=True)
    assert query(tmp_path, "SELECT status FROM runs") == [("RUNNING",)]
    command = (*LONG, "resume=true")
    kill_after(tmp_path, fork_start(*command), 2, everything=False)
    assert re.search(r"^resume: goes on after epoch [1-9]\d* of ", (tmp_path / "out").read_text(), re.MULTILINE)
    last = saved(tmp_path)
    end = time.monotonic() + 30
    while (status := query(tmp_path, "SELECT status FROM runs")) != [("FAILED",)]:  # by the writer process
        assert time.monotonic() < end, status
        time.sleep(0.2)
    (trace,) = (tmp_path / "mlruns" / "artifacts").rglob("traceback.txt")
    assert "died and no message" in trace.read_text()
    done = fork_cli(*command)
    assert (done.returncode, done.stderr) == (0, "")
    went_on = re.search(rf"resume: goes on after epoch (\d+) of {EPOCHS}: run (\w+)\n", done.stdout)
    assert went_on
    assert int(went_on[1]) == last
    assert query(tmp_path, "SELECT run_uuid, status FROM runs") == [(went_on[2], "FINISHED")]
    assert outcome(tmp_path) == never_killed
    assert query(tmp_path, "SELECT value FROM tags WHERE key = 'resumed'") == [("2",)]
    assert not query(tmp_path, "SELECT value FROM tags WHERE key = 'failure'")
    assert not list((tmp_path / "mlruns" / "outputs").rglob("epoch_*.npz"))
    assert fork_cli(*command).stdout == f"resume: kept, as it finished before: run {went_on[2]}\n"
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE tags SET value = 'Abacus' WHERE key = 'hardware.processor'")
        connection.execute("UPDATE params SET value = '99' WHERE key = 'runtime.threads'")
    told = r"resume: kept, as it finished before on another processor \(Abacus; here .+\) with 99 threads \(here \d+\)"
    assert re.fullmatch(f"{told}: run {went_on[2]}\n", fork_cli(*command).stdout)
