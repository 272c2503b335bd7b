"""Whole sweeps through the command line: real processes, real signals, a real store."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from experiments.sweeps.server import PRELOAD
from tests.prepared import Prepared, Started, environment
from tests.sweeps.processes import (
    LONG,
    QUICK,
    children,
    family,
    finished,
    in_training,
    logs,
    parents,
    query,
    ranking,
    recorded,
    server,
    start,
    sweep,
    values,
    wait_until,
    workers,
)

RunCli = Callable[..., subprocess.CompletedProcess[str]]
ForkSweep = Callable[..., tuple[int, str]]
ForkStart = Callable[..., Started]


@pytest.fixture
def fork_sweep(fork_cli: RunCli, tmp_path: Path) -> ForkSweep:
    """Do what `sweep` does in a fork: for tests of what becomes of the runs."""

    def call(*args: str, folder: Path = tmp_path, **env: str) -> tuple[int, str]:
        done = fork_cli("-m", *args, cwd=folder, **env)
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of four runs with a validation set, and its output."""
    folder = tmp_path_factory.mktemp("sweep")
    status, output = sweep(folder, *QUICK, "data.validation_size=0.2", "optimizer=rmsprop,adam", "seed=0,1")
    assert status == 0, output
    return folder, output


def test_every_combination_is_recorded_beneath_one_parent(done: tuple[Path, str]) -> None:
    folder, _ = done
    [(parent, status)] = parents(folder)
    assert status == "FINISHED"
    assert {child[2] for child in children(folder)} == {parent}
    assert [child[1] for child in children(folder)] == ["FINISHED"] * 4
    assert len({child[0] for child in children(folder)}) == 4


def test_the_ranking_shows_what_differs_the_best_first(done: tuple[Path, str]) -> None:
    rows = ranking(output := done[1])
    assert {(row[1], row[2]) for row in rows} == {(name, seed) for name in ("rmsprop", "adam") for seed in "01"}
    reached = [float(row[3]) for row in rows]
    assert reached == sorted(reached, reverse=True)
    assert "ranked by val_accuracy" in output
    assert "test" not in output, "there is a validation set"
    assert output.count("[4/4]") == 1


def test_the_parent_holds_the_results(done: tuple[Path, str]) -> None:
    folder, output = done
    [(parent, _)] = parents(folder)
    assert values(folder, "params", parent) == {"optimizer": "rmsprop,adam", "seed": "0,1"}
    metrics, tags = values(folder, "metrics", parent), values(folder, "tags", parent)
    assert (metrics["runs"], metrics["finished_runs"]) == (4, 4)
    assert values(folder, "metrics", tags["best_run"])["objective"] == metrics["best_objective"]
    assert tags["best_run"].startswith(ranking(output)[0][-1])
    assert output.count(f"python -m experiments.compare sweep={parent[:8]}\n") == 1
    assert "| optimizer | seed |" in tags["mlflow.note.content"]
    files = folder / "mlruns" / "artifacts" / parent / "artifacts"
    assert len((files / "results.csv").read_text().splitlines()) == 5
    assert (files / "figures" / "runs.png").stat().st_size > 10_000


def test_each_run_has_a_log_and_a_model_of_its_own(done: tuple[Path, str]) -> None:
    folder, _ = done
    assert sorted(logs(folder)) == ["0", "1", "2", "3"]
    assert all("epoch 2/2" in log and "Traceback" not in log for log in logs(folder).values())
    assert all(log.startswith("digits: ") for log in logs(folder).values())
    assert not list(folder.glob("mlruns/waiting/*"))
    assert len(list((folder / "mlruns" / "artifacts").rglob("model.keras"))) == 4


def test_what_has_finished_is_kept(done: tuple[Path, str], fork_sweep: ForkSweep) -> None:
    folder, _ = done
    command = (*QUICK, "data.validation_size=0.2", "optimizer=rmsprop,adam", "seed=0,1", "resume=true")
    status, output = fork_sweep(*command, folder=folder)
    assert status == 0
    assert output.startswith("resume: 4 kept\n")
    assert len(ranking(output)) == 4
    assert len(children(folder)) == 4
    assert len(parents(folder)) == 1


def test_one_wrong_combination_refuses_the_sweep(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp())  # pytest's own may be too long for a socket
    status, output = sweep(tmp_path, *QUICK, "epochs=1,0", "seed=0,1", TMPDIR=str(temporary))
    assert status == 2
    temporary.rmdir()
    assert output.startswith("error: epochs: got 0, expected a whole number of at least 1 (in 2 of 4 combinations")
    assert "Traceback" not in output
    assert not (tmp_path / "mlruns").exists()


def test_an_override_with_an_unknown_reference_is_named_beside_the_others(tmp_path: Path) -> None:
    status, output = sweep(tmp_path, *QUICK, "epochs=1,0", "tracking.experiment=${nope}")
    assert status == 2
    assert output.splitlines()[::2] == [
        "error: tracking.experiment: Interpolation key 'nope' not found",
        "error: epochs: got 0, expected a whole number of at least 1 (in 1 of 2 combinations: epochs=0)",
    ]
    assert not (tmp_path / "mlruns").exists()


def test_damaged_data_refuses_the_sweep(tmp_path: Path, fork_sweep: ForkSweep) -> None:
    (tmp_path / "mine.npz").write_bytes(b"PK nonsense")
    status, output = fork_sweep("data=npz", "data.path=mine.npz", "seed=0,1")
    assert status == 2
    assert "mine.npz: is damaged" in output
    assert not list(tmp_path.rglob("*.db"))


def test_flags_that_tensorflow_cannot_use_refuse_the_sweep(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp())  # pytest's own may be too long for a socket
    status, output = sweep(tmp_path, *QUICK, "seed=0,1", TMPDIR=str(temporary), XLA_FLAGS="--bogus")
    assert status == 2
    why = "TensorFlow cannot use these flags (Unknown flag in XLA_FLAGS: --bogus); correct or unset them"
    assert output == f"error: XLA_FLAGS: {why}\n"
    temporary.rmdir()
    assert not (tmp_path / "mlruns").exists()


def test_failures_leave_the_others_alone_and_are_listed(tmp_path: Path, fork_start: ForkStart) -> None:
    """One run diverges, one is shot; both are FAILED with their reasons, and the rest goes on."""
    command = ("data=digits", "epochs=80", "optimizer=sgd", "optimizer.learning_rate=0.01,1e30", "seed=0,1")
    process = fork_start("-m", *command, "hydra.launcher.workers=2", "hydra.launcher.retries=0")
    wait_until(in_training(tmp_path, 1))
    workers(process)[0].kill()
    assert process.wait(timeout=200) == 1
    output = (tmp_path / "out").read_text()
    assert "killed by SIGKILL" in output
    assert "the loss became" in output
    assert output.splitlines()[-1].startswith("error: 3 of 4 runs did not finish")
    assert output.count("/run.log") >= 6, "each failure with its log file, when it happens and at the end"
    assert sorted(status for _, status, _ in children(tmp_path)) == ["FAILED"] * 3 + ["FINISHED"]
    assert [status for _, status in parents(tmp_path)] == ["FAILED"]
    reasons = query(tmp_path, "SELECT value FROM tags WHERE key = 'failure'")
    assert len(reasons) == 3
    assert len(list((tmp_path / "mlruns" / "artifacts").rglob("traceback.txt"))) == 3


def test_a_failed_run_is_tried_again_and_enough_is_enough(tmp_path: Path, fork_sweep: ForkSweep) -> None:
    command = (*QUICK, "optimizer=sgd", "optimizer.learning_rate=1e30", "seed=0,1,2,3", "hydra.launcher.workers=1")
    status, output = fork_sweep(*command, "hydra.launcher.retries=1", "hydra.launcher.max_failures=1")
    assert status == 1
    assert output.count("is tried again") == 1
    assert "3 runs are not started: hydra.launcher.max_failures=1" in output
    assert [status for _, status, _ in children(tmp_path)] == ["FAILED"]
    assert query(tmp_path, "SELECT value FROM tags WHERE key = 'resumed'") == [("1",)]


def test_an_interrupted_sweep_leaves_nothing_running(tmp_path: Path, fork_start: ForkStart) -> None:
    process = fork_start("-m", *LONG, "seed=0,1,2,3", "hydra.launcher.workers=2")
    wait_until(in_training(tmp_path, 2))
    members = family(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    psutil.wait_procs(members, timeout=30)
    assert not [member for member in members if member.is_running()], "an orphan"
    assert [status for _, status in parents(tmp_path)] == ["KILLED"]
    assert [status for _, status, _ in children(tmp_path)] == ["KILLED"] * 2
    assert (tmp_path / "out").read_text().endswith("interrupted\n")


def test_a_sweep_under_way_is_seen_from_another_terminal(
    tmp_path: Path, fork_start: ForkStart, fork_cli: RunCli
) -> None:
    process = fork_start("-m", *LONG, "data.validation_size=0.2", "seed=0,1", "hydra.launcher.workers=1")
    wait_until(lambda: recorded(tmp_path))
    compare = partial(fork_cli, "sweep=latest", module="compare")
    seen = compare()
    assert (seen.returncode, seen.stderr) == (0, "")
    state, _, _, row = seen.stdout.splitlines()
    assert re.fullmatch(r"sweep [0-9a-f]{8} is under way: 0 of 2 runs ended, 1 running", state)
    assert re.match(r" +0 +0\.\d{4}, epoch \d+/4000 ", row) or re.match(r" +0\.\d{4}, epoch \d+/4000 ", row)
    members = family(process)
    process.kill()
    process.wait()
    state = compare().stdout.splitlines()[0]
    assert re.match(r"sweep [0-9a-f]{8} was interrupted: 0 of 2 runs ended", state)
    assert state.endswith("; the same command with resume=true goes on")
    psutil.wait_procs(members, timeout=60)


def test_a_shot_launcher_is_resumed_where_it_was(tmp_path: Path, fork_start: ForkStart, fork_sweep: ForkSweep) -> None:
    """At random moments, also when it has hardly begun: what had finished is kept, and no run is left RUNNING."""
    command = (*QUICK, "epochs=30", "seed=range(3)", "hydra.launcher.workers=2", "resume=true")
    moment, temporary = random.Random(0), Path(tempfile.mkdtemp())  # pytest's own may be too long for a socket
    for runs in (1, 2):
        process = fork_start("-m", *command, TMPDIR=str(temporary))
        wait_until(lambda runs=runs: len(logs(tmp_path)) >= runs and in_training(tmp_path, 1)())
        time.sleep(moment.random())
        members = family(process)
        served = any("forkserver" in " ".join(member.cmdline()) for member in members)
        process.kill()
        process.wait()
        psutil.wait_procs(members, timeout=60)
        assert not [member for member in members if member.is_running()], "an orphan"
        wait_until(lambda served=served: not (served and list(temporary.iterdir())))
        assert "RUNNING" not in {status for _, status, _ in children(tmp_path)}
        assert [status for _, status in parents(tmp_path)] == ["KILLED"]
    shutil.rmtree(temporary)
    kept = sum(finished(tmp_path).values())
    status, output = fork_sweep(*command)
    assert status == 0, output
    assert f"resume: {kept} kept" in output
    assert list(finished(tmp_path).values()) == [1] * 3
    assert [status for _, status in parents(tmp_path)] == ["FINISHED"]


def test_wrong_settings_of_the_pool_are_refused(tmp_path: Path) -> None:
    status, output = sweep(tmp_path, *QUICK, "seed=0,1", "hydra.launcher.workers=-1", "hydra.launcher.retries=x")
    assert status == 2
    assert output == (
        "error: hydra.launcher.retries: got x, expected a whole number\n"
        "       try  hydra.launcher.retries=0\n"
        "error: hydra.launcher.workers: got -1, expected a whole number of at least 1 or auto\n"
        "       try  hydra.launcher.workers=auto\n"
    )
    assert not (tmp_path / "mlruns").exists()


def test_another_sweeper_has_its_runs_looked_after(tmp_path: Path, fork_start: ForkStart) -> None:
    """Hydra's own, which has no parent run: of a run whose worker is shot the record ends, and goes on with it."""
    settings = ("hydra/sweeper=basic", "hydra.launcher.workers=1", "hydra.launcher.retries=1")
    process = fork_start("-m", *QUICK, "epochs=150", "seed=0", *settings)
    wait_until(lambda: recorded(tmp_path))
    workers(process)[0].kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "out").read_text()
    assert "is tried again" in (tmp_path / "out").read_text()
    assert query(tmp_path, "SELECT status FROM runs") == [("FINISHED",)]
    assert query(tmp_path, "SELECT value FROM tags WHERE key = 'resumed'") == [("1",)]


@pytest.mark.parametrize("letters", [80, 120])  # too many for one of its sockets, and for all
def test_a_long_name_of_the_temporary_folder_is_told(letters: int, tmp_path: Path) -> None:
    folder = tempfile.mkdtemp()
    temporary = Path(folder, "x" * (letters - len(folder) - 1))
    temporary.mkdir()
    status, output = sweep(tmp_path, *QUICK, "seed=0,1", TMPDIR=str(temporary))
    assert status == 1
    assert output.startswith("error: no worker can be started: ")
    assert "AF_UNIX path too long. Set TMPDIR to another, shorter one" in output
    temporary.rmdir()
    Path(folder).rmdir()


def test_what_xla_compiles_for_one_run_serves_the_others(
    tmp_path: Path, fork_cli: RunCli, fork_start: ForkStart
) -> None:
    """To the last bit as if each run compiled for itself, and nothing of it stays."""
    temporary = Path(tempfile.mkdtemp(prefix="a folder"))  # pytest's own may be too long for a socket
    settings = (*QUICK, "runtime.xla=true")
    process = fork_start("-m", *settings, "runtime.threads=1,2", "hydra.launcher.workers=1", TMPDIR=str(temporary))
    wait_until(lambda: list(temporary.rglob("*XLA_CPU_JIT.pb")))
    status, output = process.wait(timeout=200), (tmp_path / "out").read_text()
    assert status == 0, output
    assert len({row[-1] for row in ranking(output)}) == 2, "one fingerprint, but two runs"
    temporary.rmdir()
    assert fork_cli(*settings, "runtime.threads=2").returncode == 0
    weights = query(
        tmp_path,
        "SELECT t.value FROM tags t JOIN params p ON p.run_uuid = t.run_uuid AND p.key = 'runtime.threads' "
        "AND p.value = '2' WHERE t.key = 'weights.digest'",
    )
    assert len(weights) == 2
    assert weights[0] == weights[1]


def test_a_shot_server_is_replaced(tmp_path: Path, fork_start: ForkStart) -> None:
    """The process that workers are forked from: those under way are lost with it, the others run."""
    process = fork_start("-m", *QUICK, "epochs=100", "seed=0,1", "hydra.launcher.workers=1", "hydra.launcher.retries=1")
    wait_until(in_training(tmp_path, 1))
    members = family(process)
    workers(process)[0].parent().kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "out").read_text()
    psutil.wait_procs(members, timeout=60)
    assert not [member for member in members if member.is_running()], "an orphan"
    assert list(finished(tmp_path).values()) == [1] * 2
    assert "RUNNING" not in {status for _, status, _ in children(tmp_path)}


def test_a_server_that_is_shot_while_it_imports_is_replaced(tmp_path: Path) -> None:
    process = start(tmp_path, *QUICK, "seed=0,1")
    server(process).kill()
    assert process.wait(timeout=200) == 0, (tmp_path / "out").read_text()
    assert list(finished(tmp_path).values()) == [1] * 2


def test_a_launcher_that_is_shot_at_once_leaves_nothing(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp())  # pytest's own may be too long for a socket
    process = start(tmp_path, *QUICK, "seed=0,1", TMPDIR=str(temporary))
    members = [server(process), *family(process)]
    process.kill()
    process.wait()
    assert not psutil.wait_procs(members, timeout=60)[1], "an orphan"
    assert not list(temporary.iterdir())
    temporary.rmdir()


def test_a_server_that_was_killed_leaves_no_folder() -> None:
    script = "import psutil; from experiments.sweeps import server; server.start([]); "
    script += "[child.kill() for child in psutil.Process().children()]; server.stop(); import os; os._exit(0)"
    with tempfile.TemporaryDirectory() as temporary:  # pytest's own may be too long for a socket
        own = environment(TMPDIR=temporary)
        subprocess.run([sys.executable, "-c", script], env=own, check=True, timeout=100)
        assert not list(Path(temporary).iterdir())


def test_two_people_start_the_same_sweep_at_once(tmp_path: Path, fork_start: ForkStart) -> None:
    """On a store that does not exist yet."""
    command = (*QUICK, "seed=0,1", "hydra.launcher.workers=1")
    both = [fork_start("-m", *command), fork_start("-m", *command)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert [status for _, status in parents(tmp_path)] == ["FINISHED"] * 2
    assert sorted(finished(tmp_path).values()) == [2, 2]
    assert len(logs(tmp_path)) == 2
    assert len(list((tmp_path / "mlruns").glob("multirun/*/*/*/run.log"))) == 4, "no folder is shared"


def test_an_edit_during_a_sweep_changes_nothing_in_it(tmp_path: Path, fork_start: ForkStart) -> None:
    """Neither of a config nor of a module."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "name: sequential\n"
        "layers: [Flatten, {mine.Layer: {units: 8}}, {Dense: {units: classes, activation: softmax}}]\n"
    )
    module = tmp_path / "mine.py"
    module.write_text("import keras\n\nclass Layer(keras.layers.Dense):\n    pass\n")
    command = ("--config-dir", "conf", "data=digits", "epochs=40", "model=mine", "trust=[mine]", "seed=0,1")
    process = fork_start("-m", *command, "hydra.launcher.workers=1")
    wait_until(in_training(tmp_path, 1))
    module.write_text("raise RuntimeError('edited')\n")
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("name: nonsense\n")
    assert process.wait(timeout=200) == 0, (tmp_path / "out").read_text()
    assert list(finished(tmp_path).values()) == [1] * 2


def test_hydras_basic_launcher_records_the_same(tmp_path: Path, fork_sweep: ForkSweep) -> None:
    command = (*QUICK, "optimizer=sgd", "optimizer.learning_rate=0.1,1e30", "hydra/launcher=basic")
    status, output = fork_sweep(*command)
    assert status == 1
    assert sorted(status for _, status, _ in children(tmp_path)) == ["FAILED", "FINISHED"]
    assert [status for _, status in parents(tmp_path)] == ["FAILED"]
    assert len(ranking(output)) == 2


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("tf.constant(1)", "mine runs TensorFlow when it is imported, and its threads do not survive a fork"),
        ("1", "source files were edited while the sweep was starting"),
    ],
)
def test_why_no_worker_can_be_forked_is_told(tmp_path: Path, prepared: Prepared, code: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(f"import tensorflow as tf\n\nONE = {code}\n")
    program = tmp_path / "program.py"
    # A fork that runs a program leads a session already, and leaves without what `atexit` was told.
    lines = ["import atexit, os", "atexit._clear()", "os.setsid = os.getpid"]
    lines += ["import experiments.sweeps.preload as server", "print(server.trouble)", "atexit._run_exitfuncs()"]
    program.write_text("\n".join(lines))
    (tmp_path / "temporary").mkdir()
    preload = {"folder": str(tmp_path / "temporary"), "trust": ["mine"], "code": ["before", "before"], "data": []}
    done = prepared(str(program), cwd=tmp_path, env=environment(**{PRELOAD: json.dumps(preload)}))
    assert told in done.stdout, done.stderr
    assert not (tmp_path / "temporary").exists(), "who shoots the launcher leaves it to this process to remove it"


def test_a_sweep_without_a_record(tmp_path: Path, fork_sweep: ForkSweep) -> None:
    status, output = fork_sweep(*QUICK, "tracking=off", "seed=0,1")
    assert status == 0
    assert len(ranking(output)) == 2
    assert not list(tmp_path.rglob("*.db"))


def test_a_function_that_gives_other_data_each_time_fails_its_runs(tmp_path: Path, fork_sweep: ForkSweep) -> None:
    """They would be recorded with another fingerprint than their jobs have, and be missing in the ranking."""
    lines = [
        "import numpy as np",
        "def load():",
        "    x, y = np.random.default_rng().normal(size=(60, 4)), np.arange(60) % 3",
        "    return (x[:40], y[:40]), (x[40:], y[40:])",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    command = ("data=custom", "data.function=mine.load", "trust=[mine]", "epochs=1", "model.layer_sizes=[4]")
    status, output = fork_sweep(*command, "seed=0,1", PYTHONPATH=str(tmp_path))
    assert status == 1
    assert output.count("a function has to return the same each time: fix its seed") >= 2
    assert [status for _, status, _ in children(tmp_path)] == ["FAILED"] * 2
