"""What all tests share: the commands, run as a user runs them."""

import multiprocessing.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import hypothesis  # its plugins look for what refers to them, and would not find what is frozen
import pytest

from experiments.cli.checks import CONF
from experiments.config.files import own_folders
from tests.prepared import Prepared, Started, environment

hypothesis.settings.register_profile("few", max_examples=10)  # for versions of Python beside the first
MNIST = Path(os.environ.get("EXPERIMENTS_DATA_DIR", "missing"), "mnist.npz").absolute()
# Where pytest itself was started in the background, the shell had it ignore Ctrl-C, and its children would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
STORE = os.environ.get("MLFLOW_TRACKING_URI")


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m experiments.MODULE *args`` in an empty folder, with no data to find unless `env` says so."""

    def call(
        *args: str, module: str = "run", cwd: Path = tmp_path, flags: tuple[str, ...] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *flags, "-m", f"experiments.{module}", *args]
        return subprocess.run(
            command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """A process whose forks become commands."""
    process = Prepared()
    yield process
    process.close()


@pytest.fixture
def fork_cli(tmp_path: Path, prepared: Prepared) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Do what `run_cli` does in a fork, without the seconds of the imports: for tests of what a command does."""

    def call(*args: str, module: str = "run", cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return prepared(f"experiments.{module}", *args, cwd=cwd, env=environment(**env))

    return call


@pytest.fixture
def fork_start(tmp_path: Path, prepared: Prepared) -> Callable[..., Started]:
    """Do what `fork_cli` does without waiting for the end; output goes to the file ``out``."""

    def call(*args: str, **env: str) -> Started:
        return prepared.start("experiments.run", *args, cwd=tmp_path, env=environment(**env), out=tmp_path / "out")

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-process", action="store_true", help="skip every test at the moment it starts a process")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--in-process"):
        sys.addaudithook(_skip_processes)
        # The standard library's own way around Popen and fork, which raises no audit event.
        multiprocessing.util.spawnv_passfds = lambda *_: pytest.skip("it starts a process")


def _skip_processes(event: str, arguments: tuple[object, ...]) -> None:
    """Skip the test under way where it starts a process: what it needs is what tells, so no list can go stale."""
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn") and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip("it starts a process")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Undo what a run in this process sets for all of it: MLflow's store, also for its children, and a precision."""
    yield
    if STORE is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if keras := sys.modules.get("keras"):
        keras.config.set_dtype_policy("float32")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is about MNIST where it is not available; `.ci/run` requires it, and the tests fail without."""
    if not MNIST.is_file() and not os.environ.get("EXPERIMENTS_REQUIRE_MNIST"):
        for item in items:
            if item.get_closest_marker("mnist"):
                item.add_marker(pytest.mark.skip(reason="no mnist.npz in $EXPERIMENTS_DATA_DIR"))


@pytest.fixture
def hydra_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra with our config files, as it is within a command, in an empty folder with no store but its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    own_folders.clear()


@pytest.fixture
def unused_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
