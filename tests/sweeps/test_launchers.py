"""Sweeps with joblib, and on a Ray cluster of two nodes: recorded, resumed and interrupted as with the pool."""

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
