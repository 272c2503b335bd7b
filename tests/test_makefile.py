"""`make run` and `make ui`: what they do where there is no MNIST, and on Ctrl-C."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.prepared import environment

ROOT = Path(__file__).resolve().parents[1]
MISSING = "*** MNIST is not available here: this quick start continues with data=digits ***"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing was recorded; its environment is the one of these tests."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "scripts"):
        (place / name).symlink_to(ROOT / name)
    return place


def without_mnist(folder: Path) -> dict[str, str]:
    """Our environment, but with no MNIST and no way to download it."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return environment(KERAS_HOME=str(folder), **proxies, no_proxy="127.0.0.1")


@contextmanager
def make(folder: Path, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """Start make as a terminal does, in a process group of its own, which gets Ctrl-C as a whole."""
    command = ["make", "--old-file=.venv/.installed", f"BIN={Path(sys.executable).parent}", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=without_mnist(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for left in [process, *family]:
                left.kill()


def line_with(process: "subprocess.Popen[str]", words: str) -> str:
    """Read what a process prints, for two minutes at most, until a line has these words; return that line."""
    assert process.stdout
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        return next(line for line in process.stdout if words in line)
    finally:
        timer.cancel()


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def test_ui_without_records_is_refused(folder: Path) -> None:
    with make(folder, "ui") as process:
        _, errors = process.communicate(timeout=60)
    assert errors.startswith("error: make ui: nothing is recorded in ")
    assert not (folder / "mlruns").exists()


def test_a_setting_that_is_typed_as_a_variable_of_make_is_refused(folder: Path) -> None:
    with make(folder, "run", "epochs=3") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert 'make has no variable epochs; try  make run ARGS="epochs=3"' in errors


def test_quick_start_continues_with_digits_and_says_so(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), "epochs=1", "data.limit=500", "tracking=off"]
    done = subprocess.run(command, cwd=folder, env=without_mnist(folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert MISSING in done.stdout
    assert "test_accuracy" in done.stdout


def test_quick_start_passes_refusals_on(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), "data=digits", "epochs=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: epochs: got 0")


def test_ctrl_c_ends_the_run_as_killed(folder: Path) -> None:
    """The program gets the signal, and as much time as it needs."""
    with make(folder, "run", "ARGS=epochs=100000 runtime.xla=false") as process:
        line_with(process, MISSING)
        line_with(process, " 2/100000 ")
        [trainer] = [
            child for child in psutil.Process(process.pid).children() if "experiments.run" in " ".join(child.cmdline())
        ]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert re.search(r"make(\[\d+\])?: \*\*\* \[.*run\] (Error 130|Interrupt)", errors)
    assert not trainer.is_running()
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]


def test_ui_opens_at_the_training_runs(folder: Path, unused_port: int) -> None:
    with make(folder, "ui", f"PORT={unused_port}") as process:
        address = line_with(process, "http").split()[0]
        with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
            [(experiment,)] = connection.execute("SELECT experiment_id FROM runs").fetchall()
        assert address == f"http://127.0.0.1:{unused_port}/#/experiments/{experiment}/runs"
        wait_until(lambda: answers(f"http://127.0.0.1:{unused_port}/health"))
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        commands = [" ".join(child.cmdline()) for child in family]
        assert not any("sqlite" in command for command in commands)  # an address may hold a password
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert not psutil.wait_procs(family, timeout=20)[1]
