"""How a run's record ends, whatever happens to the run: real processes, real signals."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tracking.store import _sqlite_trouble

LONG = ["data=digits", "epochs=5000", "runtime.xla=false"]


def start(folder: Path, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "experiments.run", *args]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(folder: Path) -> list[tuple[str, str]]:
    """Name and status of all runs."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        return connection.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()


def wait_for_epochs(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch") and line.split()[1].startswith("50/"):
            return
    raise AssertionError("it ended before its time")


def test_an_interrupted_run_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG)
    wait_for_epochs(process)
    process.send_signal(signal.SIGTERM)  # Ctrl-C does the same, and is tried on a sweep
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert records(tmp_path) == [("data=digits epochs=5000 runtime.xla=false", "KILLED")]


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    process = start(
        tmp_path, "data=digits", "optimizer=sgd", "optimizer.learning_rate=1e30", "callbacks=terminate_on_nan"
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: the loss became")
    assert "Traceback" not in errors
    assert records(tmp_path)[0][1] == "FAILED"
    (trace,) = (tmp_path / "mlruns" / "artifacts").rglob("traceback.txt")
    assert "RunFailed" in trace.read_text()


def test_refused_data_leaves_no_store_and_no_process(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"nonsense")
    process = start(tmp_path, "data=npz", "data.path=mine.npz")
    _, errors = process.communicate(timeout=60)  # until all processes are gone that could still write to the pipe
    assert process.returncode == 2
    assert errors == (
        "error: mine.npz: is damaged, or not an .npz file of plain arrays (it holds Python objects, or is no archive); "
        "fetch or save it again\n"
    )
    assert not list(tmp_path.rglob("*.db"))
    assert not list(tmp_path.glob("mlruns/outputs/*/*"))


def test_without_tracking_nothing_is_recorded(tmp_path: Path) -> None:
    process = start(tmp_path, "experiment=debug", "tracking=off")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "recorded" not in output
    assert not list(tmp_path.rglob("*.db"))


def test_a_store_that_breaks_during_the_run_fails_it(tmp_path: Path) -> None:
    """The run ends with a reason instead of a silent gap in its record."""
    process = start(tmp_path, *LONG)
    wait_for_epochs(process)
    database = tmp_path / "mlruns" / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE metrics")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: the run could not be recorded")


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"no database at all" * 100)
    assert "not a usable SQLite file" in str(_sqlite_trouble(file))
    file.write_bytes(b"")
    assert _sqlite_trouble(file) is None
    assert _sqlite_trouble(tmp_path / "new" / "mlflow.db") is None


def test_a_busy_store_is_not_a_damaged_one(tmp_path: Path) -> None:
    with sqlite3.connect(file := tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE runs (run_uuid)")
    connection.execute("BEGIN EXCLUSIVE")
    assert _sqlite_trouble(file) is None
    connection.close()


def test_a_store_whose_writer_was_shot_is_not_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    write = (
        "import os, sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); connection.execute('CREATE TABLE t (x)');"
        "connection.execute('PRAGMA cache_size = 1');"
        "connection.executemany('INSERT INTO t VALUES (?)', [('x' * 1000,)] * 1000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", write, file], check=False)
    assert list(tmp_path.glob("*-journal"))
    assert _sqlite_trouble(file) is None


def test_shot_while_it_creates_the_store(tmp_path: Path) -> None:
    """There is a whole store or none."""
    file, new = tmp_path / "mlflow.db", tmp_path / "mlflow.new"
    create = "import sys; from experiments.tracking.client import open_store; print(open_store(sys.argv[1]))"
    command = [sys.executable, "-c", create, f"sqlite:///{file}"]
    process = subprocess.Popen(command)
    while not (new.exists() and new.stat().st_size):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not file.exists()
    assert "MlflowClient" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert file.exists()
    assert not list(tmp_path.glob("mlflow.new*"))


def test_no_child_is_left_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "data=digits", "epochs=1")
    process.communicate(timeout=120)
    assert process.returncode == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
