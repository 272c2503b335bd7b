"""Sweeps with joblib, and sweeps and searches on a Ray cluster of two nodes: as with the pool, whatever is killed."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.prepared import environment
from tests.sweeps.cluster import Cluster
from tests.sweeps.processes import QUICK, children, family, parents, query, ranking, wait_until


def require(plugin: str) -> None:
    """Skip a test where a plugin is not installed; `.ci/run` requires them, and the tests fail without."""
    if not os.environ.get("EXPERIMENTS_REQUIRE_LAUNCHERS") and not importlib.util.find_spec(f"hydra_plugins.{plugin}"):
        pytest.skip(f"{plugin} is not installed: make launchers")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("hydra_ray_launcher")
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        killed = made.stop()
    assert not killed, "processes of the cluster that did not end"


def test_a_sweep_with_joblib_is_recorded_the_same(
    tmp_path: Path, fork_cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    """One run fails, the other goes on, and to resume repeats the failed one only."""
    require("hydra_joblib_launcher")
    command = ("-m", *QUICK, "optimizer=sgd", "optimizer.learning_rate=1e30,0.1", "runtime.threads=1")
    command += ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = fork_cli(*command)
    assert done.returncode == 1
    [(parent, status)] = parents(tmp_path)
    assert status == "FAILED"
    assert {child[2] for child in children(tmp_path)} == {parent}
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FINISHED"]
    assert len(ranking(done.stdout)) == 2
    assert "the loss became" in done.stdout + done.stderr
    assert done.stderr.endswith("error: 1 of 2 runs did not finish; the same command with resume=true goes on\n")
    done = fork_cli(*command, "resume=true")
    assert done.returncode == 1
    assert "resume: 1 kept, 1 failed before: rerun" in done.stdout
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FINISHED"]
    assert len(parents(tmp_path)) == 1


def test_a_sweep_on_a_ray_cluster_is_recorded_until_it_is_interrupted(cluster: Cluster, tmp_path: Path) -> None:
    """Two runs fail, one finishes, one is interrupted: on both nodes, beneath a parent that is none of theirs."""
    command = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}"]
    command += ["+hydra.launcher.ray.remote.num_cpus=1", "runtime.threads=1", "+tracking.tags.node=${oc.env:NODE}"]
    command += [
        "data=digits",
        "runtime.xla=false",
        "optimizer=sgd",
        "optimizer.learning_rate=1e30,0.1",
        "epochs=2,4000",
    ]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            cluster.command(sys.executable, "-m", "experiments.run", "-m", *command),
            cwd=tmp_path,
            env=environment(**cluster.env),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    last = ["FAILED", "FAILED", "FINISHED", "RUNNING"]
    wait_until(lambda: "/4000 " in (tmp_path / "out").read_text(), seconds=240)  # before, there may be no store
    wait_until(lambda: sorted(child[1] for child in children(tmp_path)) == last)
    members = family(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    _, left = psutil.wait_procs(members, timeout=30)
    assert not left, "an orphan"
    [(parent, status)] = parents(tmp_path)
    assert status == "KILLED"
    assert {child[2] for child in children(tmp_path)} == {parent}
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FAILED", "FINISHED", "KILLED"]
    nodes = query(tmp_path, "SELECT DISTINCT value FROM tags WHERE key = 'node' ORDER BY value")
    assert nodes == [("head",), ("launcher",), ("other",)]
    output = (tmp_path / "out").read_text()
    assert "the loss became" in output
    assert "\ninterrupted\n" in output


def on_ray(cluster: Cluster, folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start a sweep on the cluster; its output goes to the file ``out``."""
    own = [
        "hydra/launcher=ray_tasks",
        f"hydra.launcher.address={cluster.address}",
        "+tracking.tags.node=${oc.env:NODE}",
    ]
    command = cluster.command(sys.executable, "-m", "experiments.run", "-m", *own, *words)
    with (folder / "out").open("w") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environment(**cluster.env), stdout=out, stderr=subprocess.STDOUT, text=True
        )


def at_work(cluster: Cluster, folder: Path) -> list[psutil.Process]:
    """The processes of the cluster that write the log of a run."""

    def writes(process: psutil.Process) -> bool:
        try:
            log = os.readlink(f"/proc/{process.pid}/fd/1")
        except OSError:  # it is gone
            return False
        return log.startswith(str(folder)) and log.endswith("/run.log")

    return list(filter(writes, cluster.processes()))


def test_a_search_on_ray_tasks_goes_on_after_its_launcher_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Each trial runs once, some are stopped early, on both nodes; nothing is left at work, and nothing RUNNING."""
    command = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra/sweeper/pruner=threshold", *QUICK, "epochs=3"]
    command += ["hydra.sweeper.pruner.lower=0.3", "optimizer=sgd", "optimizer.learning_rate=tag(log,interval(1e-4,1))"]
    command += ["data.validation_size=0.25"]
    process = on_ray(cluster, tmp_path, *command)
    wait_until(lambda: "[2/6]" in (tmp_path / "out").read_text() and at_work(cluster, tmp_path), seconds=240)
    process.kill()
    process.wait()
    wait_until(lambda: not at_work(cluster, tmp_path), seconds=30)
    status = on_ray(cluster, tmp_path, *command, "resume=true").wait(timeout=300)
    output = (tmp_path / "out").read_text()
    assert status == 0, output
    assert "stopped after epoch 1" in output
    trials = query(tmp_path, "SELECT t.value, r.status FROM tags t JOIN runs r USING (run_uuid) WHERE t.key = 'trial'")
    assert sorted(trials) == [(str(number), "FINISHED") for number in range(6)]
    assert [status for _, status in parents(tmp_path)] == ["FINISHED"]
    nodes = {node for [node] in query(tmp_path, "SELECT DISTINCT value FROM tags WHERE key = 'node'")}
    assert nodes == {"head", "other", "launcher"}


def test_a_grid_on_ray_tasks_survives_a_killed_run_until_it_is_interrupted(cluster: Cluster, tmp_path: Path) -> None:
    command = ["data=digits", "runtime.xla=false", "optimizer=sgd", "hydra.launcher.retries=1"]
    command += ["optimizer.learning_rate=1e30,0.1", "epochs=2,4000"]
    process = on_ray(cluster, tmp_path, *command)
    last = ["FAILED", "FAILED", "FINISHED", "RUNNING"]
    wait_until(lambda: sorted(child[1] for child in children(tmp_path)) == last, seconds=240)
    [worker] = at_work(cluster, tmp_path)
    worker.kill()
    wait_until(lambda: "killed by SIGKILL" in (tmp_path / "out").read_text())
    wait_until(lambda: len(query(tmp_path, "SELECT 1 FROM tags WHERE key = 'resumed'")) == 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert not at_work(cluster, tmp_path), "an orphan"
    assert [status for _, status in parents(tmp_path)] == ["KILLED"]
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FAILED", "FINISHED", "KILLED"]
    output = (tmp_path / "out").read_text()
    assert output.count("is tried again") == 3
    assert output.endswith("interrupted\n")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["hydra.launcher.cpus=64"], "error: hydra.launcher: got cpus=64 and gpus=0 for a run, which is more than any"),
        (
            ["hydra.launcher.address=127.0.0.1:1"],
            "error: hydra.launcher.address: got 127.0.0.1:1, where no Ray cluster",
        ),
        (
            ["hydra.launcher.address=local", "hydra.launcher.cpus=0"],
            "error: hydra.launcher.address: got 'local', expected HOST:PORT of the cluster's head, here or as "
            "RAY_ADDRESS\n"
            "error: hydra.launcher.cpus: got 0, expected a whole number of at least 1\n"
            "       try  hydra.launcher.cpus=1\n",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused(
    cluster: Cluster, tmp_path: Path, words: list[str], refusal: str
) -> None:
    process = on_ray(cluster, tmp_path, *QUICK, "seed=0,1", *words)
    assert process.wait(timeout=120) == 2
    assert refusal in (tmp_path / "out").read_text()
    assert not (tmp_path / "mlruns").exists()


def test_a_node_that_does_not_see_the_folder_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """The launcher gets a folder that only it can see."""
    hide = f'mount -t tmpfs none {tmp_path} && cd {tmp_path} && exec "$@"'
    hidden = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if not cluster.isolated:
        pytest.skip("no namespaces can be made here")
    command = [sys.executable, "-m", "experiments.run", "-m", *QUICK, "seed=0,1", "hydra/launcher=ray_tasks"]
    ended = subprocess.run(
        cluster.command(*hidden, *command, f"hydra.launcher.address={cluster.address}"),
        check=False,
        env=environment(**cluster.env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert (
        f"error: hydra.launcher.address: runs write into {tmp_path}, which these nodes do not share, or" in ended.stderr
    )


def test_ray_tasks_without_ray_are_refused(
    tmp_path: Path, run_cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = run_cli("-m", *QUICK, "seed=0,1", "hydra/launcher=ray_tasks", PYTHONPATH=path)
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: hydra/launcher: got ray_tasks, but Ray is not installed\n       try  make launchers\n"
    )
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("sweeper", ["grid", "optuna"])
def test_workers_need_no_ray(
    tmp_path: Path, run_cli: Callable[..., "subprocess.CompletedProcess[str]"], sweeper: str
) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    searched = ["hydra.sweeper.n_trials=2", "data.validation_size=0.2"] * (sweeper == "optuna")
    ended = run_cli("-m", *QUICK, "batch_size=16,32", f"hydra/sweeper={sweeper}", *searched, PYTHONPATH=path)
    assert ended.returncode == 0, ended.stdout
    assert "[2/2]" in ended.stdout
