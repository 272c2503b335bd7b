"""Records that are sent later, through the command line."""

import csv
import functools
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from experiments.tracking.delivered import delivered
from experiments.tracking.journal import JOURNAL
from tests.prepared import Prepared, Started, environment
from tests.sweeps.processes import query, wait_until
from tests.tracking.journals import stored

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
NOTHING = "nothing waits to be sent; all=true looks through all that was recorded here\n"
SHORT = ("data=digits", "data.limit=300", "epochs=2", "model.layer_sizes=[8]")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Path:
    """A folder with a run and a sweep that were not sent."""
    folder = tmp_path_factory.mktemp("offline")
    for words in ((), ("-m", "seed=1,2")):
        done = prepared("experiments.run", *SHORT, *words, "tracking=offline", cwd=folder, env=environment())
        assert done.returncode == 0, done.stderr
        assert "send it:  python -m experiments.sync" in done.stdout
        assert "recorded as" not in done.stdout
    assert not list(folder.rglob("*.db"))
    return folder


@pytest.fixture
def copied(offline: Path, tmp_path: Path) -> Path:
    shutil.copytree(offline / "mlruns", tmp_path / "mlruns")
    return tmp_path


def test_what_waits_is_listed_sent_once_and_can_be_sent_again(copied: Path, fork_cli: RunCli) -> None:
    listed = fork_cli("list=true", module="sync")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == 4
    assert listed.stdout.count("): FINISHED, it was not sent yet\n") == 4
    sent = fork_cli(module="sync")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout.count("): sent as run ") == 4
    assert sent.stdout.splitlines()[-1].startswith("sweep data=digits"), "its results come after its runs"
    once = stored(copied / "mlruns" / "mlflow.db")
    assert [row[1] for row in once["runs"]] == ["FINISHED"] * 4
    beneath = query(copied, "SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert beneath == query(copied, "SELECT run_uuid FROM tags WHERE key = 'sweep'")
    for words in ((), ("list=true",)):
        done = fork_cli(*words, module="sync")
        assert (done.returncode, done.stdout) == (0, NOTHING)
    named = fork_cli("mlruns", module="sync")
    assert named.stdout.count("): was sent before, as run ") == 4
    again = fork_cli("all=true", module="sync")
    assert again.stdout.splitlines() == sent.stdout.splitlines()
    assert stored(copied / "mlruns" / "mlflow.db") == once


def test_a_copied_folder_is_sent_from_elsewhere(offline: Path, tmp_path: Path, fork_cli: RunCli) -> None:
    shutil.copytree(offline / "mlruns" / "multirun", tmp_path / "copied")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    done = fork_cli("copied", f"tracking.uri={other}", module="sync")
    assert (done.returncode, done.stderr) == (0, "")
    found = stored(tmp_path / "other.db")
    assert len(found["runs"]) == 3
    best = [row[2] for row in found["metrics"] if row[1] == "best_objective"]
    assert best == [0]
    with next((tmp_path / "artifacts").rglob("results.csv")).open() as table:
        rows = list(csv.DictReader(table))
    ids = {row[0] for row in query_of(tmp_path / "other.db", "SELECT run_uuid FROM runs")}
    assert len({row["run_id"] for row in rows} & ids) == 2
    assert not (tmp_path / "mlruns").exists(), "its own records are none of this"


def query_of(file: Path, statement: str) -> list[tuple[str, ...]]:

    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


def test_two_may_send_at_once(copied: Path, fork_start: Callable[..., Started], prepared: Prepared) -> None:
    start = functools.partial(prepared.start, "experiments.sync", cwd=copied, env=environment())
    both = [start(out=copied / name) for name in ("one", "other")]
    assert [each.wait() for each in both] == [0, 0], (copied / "one").read_text() + (copied / "other").read_text()
    found = stored(copied / "mlruns" / "mlflow.db")
    assert [row[1] for row in found["runs"]] == ["FINISHED"] * 4
    assert len(found["models"]) == 3


def test_a_run_that_is_under_way_is_left_to_it(
    tmp_path: Path, fork_start: Callable[..., Started], fork_cli: RunCli
) -> None:
    process = fork_start("data=digits", "epochs=50", "batch_size=8", "runtime.xla=false")
    wait_until(lambda: list(tmp_path.rglob(JOURNAL)) and "epoch  3/" in (tmp_path / "out").read_text())
    listed = fork_cli("list=true", module="sync").stdout
    assert "RUNNING, it is under way" in listed
    done = fork_cli(module="sync")
    assert done.returncode in (0, 1)
    assert process.wait() == 0
    assert query(tmp_path, "SELECT status FROM runs") == [("FINISHED",)]
    assert query(tmp_path, "SELECT count(*) FROM metrics WHERE key = 'loss'") == [(50,)]


def test_other_commands_send_what_is_quick_and_name_the_rest(copied: Path, fork_cli: RunCli) -> None:
    (journal, *_) = (copied / "mlruns" / "outputs").rglob(JOURNAL)
    lines = [line for line in journal.read_text().splitlines() if '"report"' not in line and '"model"' not in line]
    journal.write_text("".join(f"{line}\n" for line in lines))
    trained = fork_cli(*SHORT, "seed=5")
    assert trained.returncode == 0, trained.stderr
    done = fork_cli("run=latest", "test=0:1", module="predict")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "3 records of this store wait to be sent: python -m experiments.sync\n"
    statuses = query(copied, "SELECT status FROM runs")
    assert statuses == [("FINISHED",)] * 2, "the one without a report and a model was sent"


def test_refusals(tmp_path: Path, fork_cli: RunCli) -> None:
    done = fork_cli("missing", module="sync")
    assert (done.returncode, done.stderr) == (2, "error: folders: there is no folder missing\n")
    done = fork_cli("tracking.uri=http://127.0.0.1:9", module="sync")
    assert (done.returncode, done.stdout) == (0, NOTHING)
    (tmp_path / "empty").mkdir()
    done = fork_cli("empty", module="sync")
    assert (done.returncode, done.stderr) == (
        2,
        "error: folders: nothing is recorded in empty: no journal.jsonl is in it\n",
    )
    (tmp_path / "empty").rmdir()
    assert fork_cli("all=true", module="sync").stdout == "nothing is recorded here\n"
    done = fork_cli("al=true", module="sync")
    assert "did you mean 'all'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_records_are_sent_to_each_store_that_is_named(copied: Path, fork_cli: RunCli) -> None:
    """What one store has says nothing of another one, whatever the two are called."""
    assert fork_cli(module="sync").returncode == 0
    other = "tracking.uri=sqlite:///other/mlflow.db"
    assert "it was not sent yet" in fork_cli("mlruns", "list=true", other, module="sync").stdout
    assert fork_cli("mlruns", other, module="sync").stdout.count("): sent as run ") == 4
    assert fork_cli("mlruns", "list=true", other, module="sync").stdout.count("FINISHED, sent\n") == 4
    assert fork_cli(other, module="sync").stdout == NOTHING
    (copied / "mlruns" / "mlflow.db").rename(copied / "elsewhere.db")
    gone = "FINISHED, sent, to a store that is not there any more\n"
    assert fork_cli("mlruns", "list=true", module="sync").stdout.count(gone) == 4
    told = fork_cli(module="compare").stderr
    assert "send what was recorded here: python -m experiments.sync all=true" in told
    done = fork_cli("mlruns", module="sync")
    assert done.stdout.count("): sent as run ") == 4, done.stdout
    assert len(stored(copied / "mlruns" / "mlflow.db")["runs"]) == 4


def test_a_run_that_was_deleted_there_is_not_sent_again(copied: Path, fork_cli: RunCli) -> None:
    assert fork_cli(module="sync").returncode == 0
    store = copied / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name LIKE 'data=digits%'")
    for words in (("all=true",), ("mlruns",), ()):
        done = fork_cli(*words, module="sync")
        assert done.returncode == 0, done.stdout
    (ours,) = (folder for folder in (copied / "mlruns" / "outputs").rglob("record"))
    (state,) = delivered(ours).values()
    assert state.complete
    assert state.run_id
    assert state.rejected == (f"run {state.run_id} was deleted there",)
    assert len(stored(store)["runs"]) == 4
    again = fork_cli(*SHORT, "resume=true")
    assert "kept" not in again.stdout, "it was deleted there"
    assert len(stored(store)["runs"]) == 5


def test_a_newer_copy_of_a_journal_completes_what_an_older_one_began(
    offline: Path, tmp_path: Path, fork_cli: RunCli
) -> None:
    (source,) = (offline / "mlruns" / "outputs").rglob("record")
    shutil.copytree(source, tmp_path / "copied" / "record")
    ours = tmp_path / "copied" / "record" / JOURNAL
    lines = ours.read_text().splitlines(keepends=True)
    ours.write_text("".join(lines[: len(lines) // 2]))
    older = fork_cli("copied", module="sync")
    assert older.returncode == 0, older.stdout
    failures = "SELECT count(*) FROM tags t WHERE t.run_uuid = r.run_uuid AND key = 'failure'"
    statuses = f"SELECT status, ({failures}) FROM runs r"
    assert query(tmp_path, statuses) == [("FAILED", 1)]
    shutil.copytree(source, tmp_path / "copied" / "record", dirs_exist_ok=True)
    newer = fork_cli("copied", module="sync")
    assert newer.returncode == 0, newer.stdout
    assert query(tmp_path, statuses) == [("FINISHED", 0)]
    assert query(tmp_path, "SELECT count(*) FROM metrics WHERE key = 'loss'") == [(2,)]


def test_a_command_that_finds_no_store_names_what_waits(copied: Path, fork_cli: RunCli) -> None:
    for module in ("compare", "predict"):
        done = fork_cli(module=module)
        assert done.returncode == 2
        assert "send what was recorded here: python -m experiments.sync" in done.stderr


def test_a_run_that_is_kept_is_sent(copied: Path, fork_cli: RunCli) -> None:
    kept = fork_cli(*SHORT, "resume=true")
    assert kept.returncode == 0, kept.stderr
    assert "resume: kept, as it finished before: the run in " in kept.stdout
    assert "recorded as run " in kept.stdout
    assert [row[1] for row in stored(copied / "mlruns" / "mlflow.db")["runs"]] == ["FINISHED"]
    sweep = fork_cli("-m", *SHORT, "seed=1,2", "resume=true")
    assert "resume: 2 kept" in sweep.stdout, sweep.stdout + sweep.stderr
    assert [row[1] for row in stored(copied / "mlruns" / "mlflow.db")["runs"]] == ["FINISHED"] * 4
    assert fork_cli("list=true", module="sync").stdout == NOTHING


def test_a_foreign_record_does_not_choose_where_our_password_goes(copied: Path, fork_cli: RunCli) -> None:
    (copied / "mlruns" / "outputs").rename(copied / "foreign")
    for file in (copied / "foreign").rglob(JOURNAL):
        file.write_text(file.read_text().replace('"mlruns/mlflow.db"', '"http://127.0.0.1:9"'))
    done = fork_cli("foreign", module="sync", MLFLOW_TRACKING_TOKEN="secret")
    assert done.returncode == 1
    what = "its store is http://127.0.0.1:9, but the run was not recorded on this machine; name it with tracking.uri="
    assert f"): not sent: {what}\n" in done.stdout


def test_a_store_whose_password_is_not_recorded_has_to_be_named(copied: Path, fork_cli: RunCli) -> None:
    for file in copied.rglob(JOURNAL):
        file.write_text(file.read_text().replace('"mlruns/mlflow.db"', '"http://***@127.0.0.1:9"'))
    done = fork_cli(module="sync")
    assert done.returncode == 1
    assert done.stdout.count("whose password is not recorded; name it with tracking.uri=") == 4
    assert fork_cli(f"tracking.uri=sqlite:///{copied}/mlruns/mlflow.db", module="sync").returncode == 0
    assert len(stored(copied / "mlruns" / "mlflow.db")["runs"]) == 4
