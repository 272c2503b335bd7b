"""Sweeps with joblib, and on a Ray cluster of two nodes: recorded, resumed and interrupted as with the pool."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.sweeps.cluster import Cluster
from tests.sweeps.processes import LONG, QUICK, children, family, parents, query, ranking, wait_until


@dataclass
class Launch:
    """Starts sweeps in a folder, two jobs at a time.

    Attributes:
        prefix: Of the command.
        options: Of the launcher.
        env: Beside the test's own.
        nodes: Where the runs are, and their parent.
    """

    folder: Path
    prefix: Sequence[str]
    options: Sequence[str]
    env: Mapping[str, str]
    nodes: set[str]

    def __call__(self, *arguments: str) -> "subprocess.Popen[str]":
        ours = [*self.options, "runtime.threads=1", "+tracking.tags.node=${oc.env:NODE}"]
        command = [*self.prefix, sys.executable, "-m", "experiments.run", "-m", *ours, *arguments]
        with (self.folder / "out").open("w") as out:
            env = {**os.environ, **self.env, "NODE": "launcher"}
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=subprocess.STDOUT, text=True)


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


@pytest.fixture(params=["joblib", "ray"])
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Launch:
    if request.param == "joblib":
        require("hydra_joblib_launcher")
        return Launch(tmp_path, [], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], {}, {"launcher"})
    cluster: Cluster = request.getfixturevalue("cluster")
    options = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}"]
    options += ["+hydra.launcher.ray.remote.num_cpus=1"]
    return Launch(tmp_path, cluster.command(), options, cluster.env, {"launcher", "head", "other"})


def test_a_sweep_is_recorded_the_same(launch: Launch, tmp_path: Path) -> None:
    """One run fails, the others go on, and to resume repeats that one only."""
    command = (*QUICK, "optimizer=sgd", "optimizer.learning_rate=1e30,0.1")
    process = launch(*command)
    assert process.wait(timeout=400) == 1
    output = (tmp_path / "out").read_text()
    [(parent, status)] = parents(tmp_path)
    assert status == "FAILED"
    assert {child[2] for child in children(tmp_path)} == {parent}
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FINISHED"]
    assert len(ranking(output)) == 2
    assert "the loss became" in output
    assert "\nerror: 1 of 2 runs did not finish; the same command with resume=true goes on\n" in output
    assert {node for (node,) in query(tmp_path, "SELECT value FROM tags WHERE key = 'node'")} == launch.nodes
    if "other" in launch.nodes:
        return  # to resume is the sweep's work, not the launcher's: once, without a cluster, is enough
    process = launch(*command, "resume=true")
    assert process.wait(timeout=400) == 1
    assert "resume: 1 kept, 1 failed before: rerun" in (tmp_path / "out").read_text()
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED", "FINISHED"]
    assert len(parents(tmp_path)) == 1


@pytest.mark.parametrize("launch", ["ray"], indirect=True)  # joblib's workers are plain processes, as the pool's are
def test_an_interrupted_sweep_leaves_nothing_running(launch: Launch, tmp_path: Path) -> None:
    process = launch(*LONG, "seed=0,1,2")
    wait_until(lambda: "/4000 " in (tmp_path / "out").read_text() and len(children(tmp_path)) == 2, seconds=180)
    members = family(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    _, left = psutil.wait_procs(members, timeout=30)
    assert not left, "an orphan"
    assert [status for _, status in parents(tmp_path)] == ["KILLED"]
    assert [status for _, status, _ in children(tmp_path)] == ["KILLED"] * 2
    assert "\ninterrupted\n" in (tmp_path / "out").read_text()
