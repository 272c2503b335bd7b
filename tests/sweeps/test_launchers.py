"""Sweeps with joblib, and on a Ray cluster of two nodes, through the command line; records and failures as elsewhere."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.sweeps.cluster import Cluster
from tests.sweeps.processes import LONG, QUICK, children, family, parents, query, ranking, wait_until

# Starts a sweep in a folder.
Start = Callable[..., "subprocess.Popen[str]"]


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
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts a sweep that runs two jobs at a time."""
    options, prefix, env = ["hydra.launcher.n_jobs=2"], [], {}
    if request.param == "joblib":
        require("hydra_joblib_launcher")
    else:
        nodes: Cluster = request.getfixturevalue("cluster")
        prefix, env = nodes.command(), nodes.env
        options = [
            f"hydra.launcher.ray.init.address={nodes.address}",
            "+hydra.launcher.ray.init.object_store_memory=null",
            "+hydra.launcher.ray.remote.num_cpus=1",
            "+tracking.tags.node=${oc.env:NODE}",
        ]

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [*prefix, sys.executable, "-m", "experiments.run", "-m", f"hydra/launcher={request.param}"]
        with (tmp_path / "out").open("w") as out:
            everything = [*command, *options, "runtime.threads=1", *arguments]
            return subprocess.Popen(
                everything, cwd=tmp_path, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT, text=True
            )

    return start


def test_a_sweep_is_recorded_the_same(
    launch: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One run fails, the others go on, and resuming repeats that one only."""
    command = (*QUICK, "optimizer=sgd", "optimizer.learning_rate=1e30,0.1,0.2,0.3")
    process = launch(*command)
    assert process.wait(timeout=200) == 1
    output = (tmp_path / "out").read_text()
    [(parent, status)] = parents(tmp_path)
    assert status == "FAILED"
    assert {child[2] for child in children(tmp_path)} == {parent}
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED"] + ["FINISHED"] * 3
    assert len(ranking(output)) == 4
    assert "the loss became" in output
    assert output.rstrip().endswith("error: 1 of 4 runs did not finish; the same command with resume=true goes on")
    if "cluster" in request.fixturenames or "node" in {key for (key,) in query(tmp_path, "SELECT key FROM tags")}:
        nodes = query(tmp_path, "SELECT DISTINCT value FROM tags WHERE key = 'node' ORDER BY value")
        assert nodes == [("head",), ("launcher",), ("other",)]
    process = launch(*command, "resume=true")
    assert process.wait(timeout=200) == 1
    assert "resume: 3 kept, 1 failed before: rerun" in (tmp_path / "out").read_text()
    assert sorted(child[1] for child in children(tmp_path)) == ["FAILED"] * 2 + ["FINISHED"] * 3
    assert len(parents(tmp_path)) == 1


def test_an_interrupted_sweep_leaves_nothing_running(launch: Start, tmp_path: Path) -> None:
    process = launch(*LONG, "seed=0,1,2")
    wait_until(lambda: (tmp_path / "out").read_text().count("/4000 ") > 3)
    members = family(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    _, left = psutil.wait_procs(members, timeout=30)
    assert not left, "an orphan"
    assert [status for _, status in parents(tmp_path)] == ["KILLED"]
    assert [status for _, status, _ in children(tmp_path)] == ["KILLED"] * 2
    assert (tmp_path / "out").read_text().rstrip().endswith("interrupted")
