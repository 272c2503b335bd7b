"""`make server`: a team's server with PostgreSQL and access control, and all that a user does with one."""

import base64
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import psutil
import pytest

from tests.prepared import Prepared, Started, environment
from tests.sweeps.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("data=digits", "data.limit=300", "epochs=2", "model.layer_sizes=[8]")
ForkStart = Callable[..., Started]

if not os.environ.get("EXPERIMENTS_REQUIRE_SERVER"):
    if not (shutil.which("initdb") or glob("/usr/lib/postgresql/*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed", allow_module_level=True)
    if not (importlib.util.find_spec("psycopg2") and importlib.util.find_spec("flask_wtf")):
        pytest.skip("make server has not installed its packages", allow_module_level=True)


class Served:
    """A server of a folder, as `make server` starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it; return what it says when it serves."""
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "server.py", str(self.port)], cwd=self.folder, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "MLFLOW_TRACKING_PASSWORD" in line:
                return "".join(lines)
        raise AssertionError("".join(lines) + (self.folder / "mlruns/server/mlflow.log").read_text())

    def stop(self, number: int) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.communicate(timeout=60)
            self.process = None

    @property
    def password(self) -> str:
        return (self.folder / "mlruns/server/password").read_text()

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    def add_user(self, name: str, password: str) -> None:
        uri = f"{self.credentials['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/users/create"
        body = json.dumps({"username": name, "password": password}).encode()
        told = base64.b64encode(f"admin:{self.password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {told}"}
        urllib.request.urlopen(urllib.request.Request(uri, body, headers), timeout=30).close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """In a folder that PostgreSQL's own user can reach, as which it runs where these tests are root's."""
    with tempfile.TemporaryDirectory(prefix="served") as folder:
        Path(folder).chmod(0o755)
        server = Served(Path(folder))
        server.start()
        yield server
        server.stop(signal.SIGINT)
        assert not [line for line in command_lines() if folder in line], "nothing is left of it"


def command_lines() -> list[str]:
    """Of all processes, as everybody can read them."""
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]


def test_all_that_a_user_does(served: Served, tmp_path: Path, prepared: Prepared, fork_start: ForkStart) -> None:
    def command(module: str, *arguments: str) -> str:
        done = prepared(
            f"experiments.{module}", *arguments, cwd=tmp_path, env=environment(**served.credentials, COLUMNS="200")
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    started = fork_start(*SHORT, "epochs=20", **served.credentials)
    wait_until(lambda: (tmp_path / "out").exists() and "epoch " in (tmp_path / "out").read_text())
    commands = command_lines()
    assert started.wait() == 0, (tmp_path / "out").read_text()
    assert "recorded as run " in (tmp_path / "out").read_text()
    sweep = command("run", "-m", *SHORT, "seed=1,2,3,4,5,6,7,8", "hydra.launcher.workers=8")
    assert "recorded beneath run " in sweep
    assert command("run", "-m", *SHORT, "seed=1,2,3,4,5,6,7,8", "resume=true").startswith("resume: 8 kept")
    ranked = json.loads(command("compare", "format=json"))
    assert sum(len(each["runs"]) for each in ranked["standings"]) == 8, ranked
    (latest,) = re.findall(r"^run (\w+) ", command("predict", "run=latest", "test=0:3"))
    assert "version 1" in command("promote", "run=latest", "name=digits", "alias=champion")
    assert command("predict", "run=digits@champion", "test=0:1").startswith(f"run {latest} ")
    assert "same" in command("reproduce", "run=latest")
    served.add_user("bob", "a password of bob's")
    bob = served.credentials | {"MLFLOW_TRACKING_USERNAME": "bob", "MLFLOW_TRACKING_PASSWORD": "a password of bob's"}
    done = prepared("experiments.promote", "run=latest", "name=another", cwd=tmp_path, env=environment(**bob))
    assert done.stdout.startswith("another@champion is version 1 "), done.stderr
    assert command("sync").startswith("nothing waits to be sent")
    secrets = [
        served.password,
        *((served.folder / "mlruns/server" / name).read_text() for name in ("database_password", "session_key")),
    ]
    files = [
        *tmp_path.rglob("*"),
        *(served.folder / "mlruns/server").rglob("*.log"),
        served.folder / "mlruns/server/postgres/log",
    ]
    for secret in secrets:
        assert not [line for line in commands if secret in line]
        assert not [file for file in files if file.is_file() and secret.encode() in file.read_bytes()]


def test_who_does_not_name_a_password_is_refused(served: Served, tmp_path: Path, prepared: Prepared) -> None:
    for more in ({}, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong"}):
        uri = served.credentials["MLFLOW_TRACKING_URI"]
        env = environment(MLFLOW_TRACKING_URI=uri, **more)
        done = prepared("experiments.run", *SHORT, cwd=tmp_path, env=env)
        assert done.returncode == 2
        assert "cannot be used (" in done.stderr
        assert "tracking=offline" in done.stderr


def test_it_goes_on_with_what_is_there_after_it_was_killed(served: Served, tmp_path: Path, prepared: Prepared) -> None:
    """Its database, too, had no time to end."""
    trained = prepared("experiments.run", *SHORT, cwd=tmp_path, env=environment(**served.credentials))
    assert trained.returncode == 0, trained.stderr
    assert served.process
    served.process.kill()
    served.process.communicate()
    served.process = None
    served.start()
    done = prepared(
        "experiments.predict", "run=latest", "test=0:1", cwd=tmp_path, env=environment(**served.credentials)
    )
    assert done.returncode == 0, done.stderr
    assert f"run {trained.stdout.rpartition('run=')[2].strip()}" in done.stdout


def test_starts_that_do_nothing(served: Served) -> None:
    def refused(*arguments: str) -> str:
        command = [sys.executable, ROOT / "scripts" / "server.py", *arguments]
        done = subprocess.run(
            command, cwd=served.folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        return done.stderr

    assert "is already running" in refused(str(served.port))
    assert "got port fivethousand" in refused("fivethousand")
    assert "got port 99999" in refused("99999")


def test_an_interrupt_while_it_starts_leaves_nothing(served: Served, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="early") as folder:
        Path(folder).chmod(0o755)
        early = Served(Path(folder))
        early.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "server.py", str(early.port)], cwd=folder, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wait_until(lambda: any("postgres -D" in line and folder in line for line in command_lines()))
        early.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        early.stop(signal.SIGINT)
        assert not [line for line in command_lines() if folder in line]
