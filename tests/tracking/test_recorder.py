"""How a run's record ends, whatever happens to the run: real processes, real signals."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from experiments.tracking.delivered import Delivered, note_delivered
from experiments.tracking.journal import JOURNAL, Journal
from experiments.tracking.lookup import Answer, choose
from experiments.tracking.recorder import Recorder
from experiments.tracking.sqlite import trouble
from experiments.tracking.summary import PastRun, summary
from tests import composing
from tests.prepared import Started
from tests.sweeps.processes import wait_until

ForkStart = Callable[..., Started]
RunCli = Callable[..., subprocess.CompletedProcess[str]]

LONG = ["data=digits", "epochs=5000", "runtime.xla=false"]


def records(folder: Path) -> list[tuple[str, str]]:
    """Name and status of all runs."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        return connection.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()


def recorder(folder: Path) -> Recorder:
    """Of a run with a journal and without a writer process."""
    made = Recorder(composing.config("data=digits", "tracking=offline"))
    made.journal = Journal.create(folder)
    made.journal.append("opened", uuid="1", started=0, store="", experiment="e", name="n", parent=None, tags={})
    return made


def wait_for_epochs(out: Path) -> None:
    wait_until(lambda: out.exists() and " 20/" in out.read_text())


def test_an_interrupted_run_is_killed(tmp_path: Path, fork_start: ForkStart) -> None:
    process = fork_start(*LONG)
    wait_for_epochs(tmp_path / "out")
    process.send_signal(signal.SIGTERM)  # Ctrl-C does the same, and is tried on a sweep
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "out").read_text().endswith("\ninterrupted\n")
    assert records(tmp_path) == [("data=digits epochs=5000 runtime.xla=false", "KILLED")]


def test_an_interrupt_that_a_library_made_another_error_of_is_one(tmp_path: Path) -> None:
    def save() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("Can't close the ZIP file")

    with pytest.raises(KeyboardInterrupt), recorder(tmp_path):
        save()
    assert summary(tmp_path / "record").status == "KILLED"


def test_a_run_that_fails_says_why(tmp_path: Path, fork_cli: RunCli) -> None:
    done = fork_cli("data=digits", "optimizer=sgd", "optimizer.learning_rate=1e30", "callbacks=terminate_on_nan")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the loss became")
    assert "Traceback" not in done.stderr
    assert records(tmp_path)[0][1] == "FAILED"
    (trace,) = (tmp_path / "mlruns" / "artifacts").rglob("traceback.txt")
    assert "RunFailed" in trace.read_text()


def test_refused_data_leaves_no_store_and_no_process(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "mine.npz").write_bytes(b"nonsense")
    done = run_cli("data=npz", "data.path=mine.npz")  # until all processes are gone that could still write to the pipe
    assert done.returncode == 2
    assert done.stderr == (
        "error: mine.npz: is damaged, or not an .npz file of plain arrays (File is not a zip file); "
        "fetch or save it again\n"
    )
    assert not list(tmp_path.rglob("*.db"))
    assert not list(tmp_path.glob("mlruns/outputs/*/*"))


def test_without_tracking_nothing_is_recorded(tmp_path: Path, fork_cli: RunCli) -> None:
    done = fork_cli("experiment=debug", "tracking=off")
    assert (done.returncode, done.stderr) == (0, "")
    assert "recorded" not in done.stdout
    assert not list(tmp_path.rglob("*.db"))


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"no database at all" * 100)
    assert "not a usable SQLite file" in str(trouble(file))
    file.write_bytes(b"")
    assert trouble(file) is None
    assert trouble(tmp_path / "new" / "mlflow.db") is None


def test_a_busy_store_is_not_a_damaged_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(file := tmp_path / "mlflow.db")) as connection:
        with connection:
            connection.execute("CREATE TABLE runs (run_uuid)")
        connection.execute("BEGIN EXCLUSIVE")
        assert trouble(file) is None


def test_a_store_whose_writer_was_shot_is_not_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    write = (
        "import os, sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "connection.execute('PRAGMA cache_size = 1'); connection.execute('BEGIN');"
        "connection.execute('CREATE TABLE t (x)');"
        "connection.executemany('INSERT INTO t VALUES (?)', [('x' * 1000,)] * 1000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", write, file], check=False)
    assert list(tmp_path.glob("*-journal"))
    assert trouble(file) is None


def test_shot_while_it_creates_the_store(tmp_path: Path) -> None:
    """There is a whole store or none."""
    file, new = tmp_path / "mlflow.db", tmp_path / "mlflow.db.1234"
    create = "import sys; from experiments.tracking.client import open_store; print(open_store(sys.argv[1]))"
    command = [sys.executable, "-c", create, f"sqlite:///{file}"]
    process = subprocess.Popen(command)
    while not (tmp_path / "mlflow.db.lock").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not file.exists()
    new.write_bytes(b"SQLite format 3")  # as it is left if it is killed a second later
    assert "MlflowClient" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert file.exists()


def _left(tmp_path: Path, name: str, status: str, *, complete: bool = True, objective: float | None = 0.5) -> PastRun:
    """What a journal says of a run that the store has, or had."""
    folder = tmp_path / name / "record"
    folder.mkdir(parents=True)
    (folder / JOURNAL).touch()
    note_delivered(folder, "s", Delivered(run_id=name, complete=complete))
    return PastRun(folder, name, {"store": "s", "tags": {}, "dataset": {"name": "digits"}}, status, objective)


def _stored(name: str, status: str) -> PastRun:
    return PastRun(stored_id=name, status=status, objective=0.5)


@pytest.mark.parametrize(
    ("here", "stored", "expected"),
    [
        (["FINISHED"], ["FINISHED"], "0"),
        (["FINISHED"], ["DELETED"], None),
        (["FINISHED"], [None], None),  # the store is another one now
        (["KILLED"], ["KILLED"], "0"),
        (["KILLED"], [None], "0"),
        (["KILLED"], ["DELETED"], None),
        (["KILLED", "FINISHED"], ["KILLED", "FINISHED"], "1"),
        (["FAILED", "KILLED"], ["FAILED", "KILLED"], "0"),  # the latest
        ([], [], None),
    ],
)
def test_which_run_is_kept_or_goes_on(
    tmp_path: Path, here: list[str], stored: list[str | None], expected: str | None
) -> None:
    runs = [_left(tmp_path, str(number), status) for number, status in enumerate(here)]
    answer = Answer(runs=[_stored(str(number), status) for number, status in enumerate(stored) if status])
    chosen = choose(runs, answer, tmp_path / "output")
    assert (chosen and chosen.run_id) == expected


def test_a_store_that_is_away_does_not_make_runs_disappear(tmp_path: Path) -> None:
    runs = [_left(tmp_path, "a", "FINISHED")]
    assert choose(runs, Answer(away="it is"), tmp_path)
    assert not choose(runs, Answer(), tmp_path)


def test_a_run_of_another_machine_is_kept_and_one_that_a_retry_left_goes_on(tmp_path: Path) -> None:
    answer = Answer(runs=[_stored("other", "FINISHED"), _stored("own", "FAILED")])
    chosen = choose([], answer, tmp_path / "output")
    assert chosen
    assert chosen.run_id == "other"
    chosen = choose([_left(tmp_path, "own", "FAILED")], answer, tmp_path / "own")
    assert chosen
    assert chosen.run_id == "own"
