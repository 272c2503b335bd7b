"""What happens to a record when something goes wrong: real processes, real signals, a real store.

Each row of the table in ``docs/architecture.md`` names its test.
"""

import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from experiments.tracking import journal
from tests.prepared import Started
from tests.sweeps.processes import family, finished, query, values, wait_until, workers

ForkStart = Callable[..., Started]
RunCli = Callable[..., subprocess.CompletedProcess[str]]

RUN = ("data=digits", "epochs=30", "batch_size=8", "model.layer_sizes=[16]", "runtime.xla=false")


def started(folder: Path, fork_start: ForkStart, *more: str, epochs: int = 5) -> Started:
    """A run that has finished some epochs."""
    process = fork_start(*RUN, *more)
    wait_until(lambda: said(folder).count("epoch ") >= epochs or process.poll() is not None)
    assert process.poll() is None, said(folder)
    return process


def said(folder: Path) -> str:
    out = folder / "out"
    return out.read_text() if out.exists() else ""


def writers(process: Started) -> list[psutil.Process]:
    """The writer process of a run: the child that leads a session of its own."""
    return [child for child in family(process)[1:] if os.getsid(child.pid) == child.pid]


def is_complete(folder: Path, status: str = "FINISHED", runs: int = 1) -> None:
    """Whether the store has all of the runs, once, and nothing waits."""
    assert [row[0] for row in query(folder, "SELECT status FROM runs")] == [status] * runs
    if status == "FINISHED":
        losses = query(
            folder, "SELECT run_uuid, count(*), count(DISTINCT step) FROM metrics WHERE key = 'loss' GROUP BY 1"
        )
        assert [row[1:] for row in losses] == [(30, 30)] * runs
        models = query(folder, "SELECT source_run_id FROM logged_models WHERE status = 2")
        assert len(models) == len({row[0] for row in models}) == runs
    assert not list((folder / "mlruns").glob("waiting/*"))


def record(folder: Path) -> Path:
    """The folder of the only journal."""
    (found,) = folder.rglob(journal.JOURNAL)
    return found.parent


def test_the_trainer_is_killed(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = started(tmp_path, fork_start)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: query(tmp_path, "SELECT status FROM runs") == [("FAILED",)], 30)
    assert query(tmp_path, "SELECT value FROM tags WHERE key = 'failure'")
    done = fork_cli(*RUN, "resume=true")
    assert done.returncode == 0, done.stderr
    is_complete(tmp_path)


@pytest.mark.parametrize("seed", [0])
def test_the_writer_is_killed(seed: int, tmp_path: Path, fork_start: ForkStart) -> None:
    """At some moment: another one does what it has left."""
    process = fork_start(*RUN)
    wait_until(lambda: writers(process))
    time.sleep(random.Random(seed).uniform(0, 2))
    for writer in writers(process):
        writer.kill()
    assert process.wait() == 0, said(tmp_path)
    assert "recorded as run" in said(tmp_path)
    is_complete(tmp_path)


@pytest.mark.parametrize("seed", [1])
def test_both_are_killed(seed: int, tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = fork_start(*RUN)
    wait_until(lambda: list(tmp_path.rglob(journal.JOURNAL)))
    time.sleep(random.Random(seed).uniform(0, 2))
    for member in family(process):
        member.kill()
    process.wait()
    done = fork_cli(module="sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[0] for row in query(tmp_path, "SELECT status FROM runs")] in (["FAILED"], ["FINISHED"])
    done = fork_cli(*RUN, "resume=true")
    assert done.returncode == 0, done.stderr
    is_complete(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_closed_or_the_run_interrupted_repeatedly(
    number: int, tmp_path: Path, fork_start: ForkStart
) -> None:
    process = started(tmp_path, fork_start)
    members = family(process)
    for _ in range(5):
        process.send_signal(number)
        time.sleep(0.02)
    assert process.wait() == 130
    psutil.wait_procs(members, timeout=30)
    assert not [member for member in members if member.is_running()]
    is_complete(tmp_path, "KILLED")


def test_the_stores_file_is_deleted(tmp_path: Path, fork_start: ForkStart) -> None:
    process = started(tmp_path, fork_start)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "mlruns" / f"mlflow.db{suffix}").unlink(missing_ok=True)
    assert process.wait() == 0, said(tmp_path)
    assert "recorded as run" in said(tmp_path)
    is_complete(tmp_path)


def test_the_stores_file_becomes_garbage(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = started(tmp_path, fork_start)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"nonsense" * 1000)
    garbage.rename(tmp_path / "mlruns" / "mlflow.db")
    assert process.wait() == 0, said(tmp_path)
    assert f"recorded in {record(tmp_path)}, but not sent (" in said(tmp_path)
    assert "send it:  python -m experiments.sync" in said(tmp_path)
    (tmp_path / "mlruns" / "mlflow.db").unlink()
    assert fork_cli(module="sync").returncode == 0
    is_complete(tmp_path)


def test_the_store_is_locked_by_another_program(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = started(tmp_path, fork_start)
    wait_until(lambda: query(tmp_path, "SELECT 1 FROM runs"))
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db", timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert process.wait() == 0, said(tmp_path)
        assert time.monotonic() - began < 90
        assert "but not sent (" in said(tmp_path)
        other.rollback()
    assert fork_cli(module="sync").returncode == 0
    is_complete(tmp_path)


def test_the_folder_of_all_records_is_removed(tmp_path: Path, fork_start: ForkStart) -> None:
    process = started(tmp_path, fork_start)
    while (tmp_path / "mlruns").exists():
        shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
    assert process.wait() == 1
    assert "error: the run could not be recorded: " in said(tmp_path)
    assert "recorded as" not in said(tmp_path)


def test_power_is_lost(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    """The journal's last line is incomplete, and what was delivered is known less far than it was."""
    process = started(tmp_path, fork_start)
    for member in family(process):
        member.kill()
    process.wait()
    folder = record(tmp_path)
    content = (folder / journal.JOURNAL).read_bytes()
    (folder / journal.JOURNAL).write_bytes(content + b'{"event": "metrics", "ti' + b"\0" * 10)
    (folder / journal.DELIVERED).unlink(missing_ok=True)
    assert fork_cli(module="sync").returncode == 0
    is_complete(tmp_path, "FAILED")
    done = fork_cli(*RUN, "resume=true")
    assert done.returncode == 0, done.stderr
    is_complete(tmp_path)


def test_equal_commands_at_once_train_once(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    first = started(tmp_path, fork_start, "resume=true")
    second = fork_cli(*RUN, "resume=true")
    assert first.wait() == 0
    assert second.returncode == 0, second.stderr
    lines = second.stdout.splitlines()
    assert lines[0] == f"resume: waits for process {first.pid} ({record(tmp_path).parent}), which trains the same run"
    assert lines[1].startswith("resume: kept, as it finished before: run ")
    is_complete(tmp_path)


def test_a_worker_is_killed_before_it_opens_its_run(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    """It leaves a run with its parameters, which failed; another one is begun for it."""
    command = ("-m", *RUN, "seed=1,2", "hydra.launcher.workers=1")
    process = fork_start(*command)
    wait_until(lambda: workers(process))
    workers(process)[0].kill()
    assert process.wait() == 1, said(tmp_path)
    killed = "SELECT run_uuid FROM tags WHERE key = 'failure'"
    ((lost,),) = query(tmp_path, killed)
    assert values(tmp_path, "params", lost)["seed"] == "1"
    assert not values(tmp_path, "metrics", lost)
    done = fork_cli(*command, "resume=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resume: 1 kept, 1 failed before: rerun" in done.stdout
    assert list(finished(tmp_path).values()) == [1, 1]
    assert query(tmp_path, killed) == [(lost,)]
    whole = (
        "SELECT value FROM params WHERE key = 'seed' AND run_uuid IN (SELECT run_uuid FROM metrics WHERE key = 'loss')"
    )
    assert sorted(query(tmp_path, whole)) == [("1",), ("2",)]
    assert query(tmp_path, "SELECT count(*) FROM inputs WHERE destination_type = 'RUN'") == [(2,)]


def _limit_files(process: psutil.Process, size: int) -> None:
    """Have writes behind a size fail, as on a full disk."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))


def test_the_stores_disk_is_full(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = started(tmp_path, fork_start)
    for writer in writers(process):
        _limit_files(writer, 20_000)
    assert process.wait() == 0, said(tmp_path)
    assert f"recorded in {record(tmp_path)}, but not sent (" in said(tmp_path)
    done = fork_cli(module="sync")
    assert done.returncode == 0, done.stdout
    is_complete(tmp_path)


def test_the_output_disk_is_full(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    process = started(tmp_path, fork_start)
    file = record(tmp_path) / journal.JOURNAL
    _limit_files(psutil.Process(process.pid), file.stat().st_size + 500)
    assert process.wait() == 1
    assert "error: the run could not be recorded: " in said(tmp_path)
    content = file.read_bytes()
    assert len(list(journal.read(file.parent))) == content.count(b"\n")
    is_complete(tmp_path, "FAILED")
    assert fork_cli(*RUN, "resume=true").returncode == 0
    is_complete(tmp_path)


def test_overlapping_sweeps_train_each_job_once(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    """The second begins with jobs that nobody trains."""
    command = ("-m", *RUN, "resume=true", "hydra.launcher.workers=1")
    first = fork_start(*command, "seed=0,1")
    wait_until(lambda: list(tmp_path.rglob("*/0/record/checkpoints/*.npz")))
    second = fork_cli(*command, "seed=0,1,2")
    assert first.wait() == 0, said(tmp_path)
    assert second.returncode == 0, second.stderr
    counts = query(tmp_path, "SELECT value, count(*) FROM tags WHERE key = 'fingerprint' GROUP BY value")
    assert [row[1] for row in counts] == [1, 1, 1]
    lines = second.stdout.splitlines()
    assert "seed=0" not in next(line for line in lines if line.startswith("[1/3]"))
    assert [row[1] for row in query(tmp_path, "SELECT key, count(*) FROM tags WHERE key = 'sweep'")] == [2]
    table = fork_cli("sweep=latest", "format=csv", module="compare").stdout
    assert len(table.splitlines()) == 4, "kept runs are compared, too"


def test_every_row_of_the_documented_table_has_its_test() -> None:
    root = Path(__file__).resolve().parents[2]
    table = (root / "docs" / "architecture.md").read_text().partition("### What happens to the record")[2]
    named = re.findall(r"\| `(test_\w+)` \|$", table, re.MULTILINE)
    files = ("tracking/test_faults.py", "tracking/test_servers.py", "sweeps/test_sweep.py")
    written = "".join((root / "tests" / file).read_text() for file in files)
    assert len(named) > 15
    for name in named:
        assert f"\ndef {name}(" in written, name


def test_an_output_folder_belongs_to_one_run_at_a_time(tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli) -> None:
    """What a run has left there stays when another one uses it later."""
    process = started(tmp_path, fork_start, "hydra.run.dir=shared")
    refused = fork_cli(*RUN, "seed=1", "hydra.run.dir=shared")
    assert refused.returncode == 2
    assert "error: hydra.run.dir: " in refused.stderr
    assert "is the output folder of another run that is under way" in refused.stderr
    process.kill()
    process.wait()
    kept = {file: file.read_bytes() for file in (tmp_path / "shared").rglob("checkpoints/*")}
    assert fork_cli(*RUN, "seed=1", "epochs=2", "hydra.run.dir=shared").returncode == 0
    assert kept
    assert {file: file.read_bytes() for file in kept} == kept
    assert fork_cli(*RUN, "resume=true").stdout.count("resume: goes on after epoch ") == 1


def test_files_of_the_user_stay_as_they_are(tmp_path: Path, fork_cli: RunCli) -> None:
    """Whatever names the store has, beside files of the same names with the endings that programs add."""
    names = ("poetry.lock", "poetry.new", "poetry.db.new", "lock", "checkpoints", "results.csv", "record")
    for name in names:
        (tmp_path / name).write_text("the user's")
    uri = f"tracking.uri=sqlite:///{tmp_path}/poetry.db"
    done = fork_cli(*RUN, "epochs=1", uri, "hydra.run.dir=.")
    assert done.returncode == 0, done.stderr
    assert "recorded as run" in done.stdout
    for name in names:
        assert (tmp_path / name).read_text() == "the user's"
