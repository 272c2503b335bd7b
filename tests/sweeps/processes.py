"""Sweeps as a user starts them, and what is left of them: processes and records."""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from glob import glob
from pathlib import Path

import psutil

from tests.prepared import Started, environment

QUICK = ("data=digits", "data.limit=300", "epochs=2", "model.layer_sizes=[8]")
LONG = ("data=digits", "epochs=4000", "runtime.xla=false")


def start(folder: Path, *args: str, **env: str) -> "subprocess.Popen[str]":
    """Start a sweep; its output goes to the file ``out``."""
    command = [sys.executable, "-m", "experiments.run", "-m", *args]
    with (folder / "out").open("a") as out:
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment(**env))  # type: ignore[return-value]


def sweep(folder: Path, *args: str, **env: str) -> tuple[int, str]:
    """Run a sweep to its end; return exit status and output."""
    (folder / "out").unlink(missing_ok=True)
    status = start(folder, *args, **env).wait(timeout=300)
    return status, (folder / "out").read_text()


def wait_until(holds: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def logs(folder: Path) -> dict[str, str]:
    """The runs' own output, by the number of the job."""
    found = map(Path, glob(f"{folder}/mlruns/multirun/*/*/*/run.log"))  # pathlib's fails where a folder vanishes
    return {file.parent.name: file.read_text() for file in found}


def in_training(folder: Path, runs: int) -> Callable[[], bool]:
    """Whether at least so many runs have finished an epoch."""
    return lambda: sum("epoch" in log for log in logs(folder).values()) >= runs


def query(folder: Path, sql: str) -> list[tuple[str, ...]]:
    """Ask a store; nothing, as long as there is none."""
    if not (file := folder / "mlruns" / "mlflow.db").exists():
        return []
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        return connection.execute(sql).fetchall()


def recorded(folder: Path) -> bool:
    """Whether an epoch of some run is in its record, which may lag behind."""
    there = (folder / "mlruns" / "mlflow.db").exists()
    return there and bool(query(folder, "SELECT 1 FROM metrics WHERE key = 'loss' LIMIT 1"))


def values(folder: Path, table: str, run_id: str) -> dict[str, str]:
    """A run's params, metrics or tags."""
    return dict(query(folder, f"SELECT key, value FROM {table} WHERE run_uuid = '{run_id}'"))  # type: ignore[arg-type]


def children(folder: Path) -> list[tuple[str, str, str]]:
    """Fingerprint, status and parent of the runs that have one."""
    return query(  # type: ignore[return-value]
        folder,
        "SELECT f.value, r.status, p.value FROM runs r JOIN tags p ON p.run_uuid = r.run_uuid AND "
        "p.key = 'mlflow.parentRunId' LEFT JOIN tags f ON f.run_uuid = r.run_uuid AND f.key = 'fingerprint'",
    )


def parents(folder: Path) -> list[tuple[str, str]]:
    """Id and status of the sweeps."""
    return query(  # type: ignore[return-value]
        folder, "SELECT r.run_uuid, r.status FROM runs r JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'sweep'"
    )


def finished(folder: Path) -> Counter[str]:
    """How often each fingerprint has finished."""
    return Counter(fingerprint for fingerprint, status, _ in children(folder) if status == "FINISHED")


def family(process: "subprocess.Popen[str] | Started") -> list[psutil.Process]:
    """A process and all that it started, at whatever remove."""
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


def workers(process: "subprocess.Popen[str] | Started") -> list[psutil.Process]:
    """The worker processes of a sweep: those that write the log of a run."""

    def writes_log(child: psutil.Process) -> bool:
        try:
            return os.readlink(f"/proc/{child.pid}/fd/1").endswith("/run.log")
        except OSError:  # it is gone
            return False

    return sorted(filter(writes_log, family(process)), key=lambda worker: worker.pid)


def server(process: "subprocess.Popen[str]") -> psutil.Process:
    """The process that workers are forked from, as soon as there is one."""
    found = list[psutil.Process]()

    def look() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            found.extend(child for child in family(process) if "forkserver" in " ".join(child.cmdline()))
        return found

    wait_until(look)
    return found[0]


def ranking(output: str) -> list[list[str]]:
    """The rows of the table at a sweep's end."""
    lines = output.splitlines()
    [head] = [number for number, line in enumerate(lines) if re.search(r"_accuracy +seconds +run", line)]
    rows = []
    for line in lines[head + 1 :]:
        if not line.startswith((" ", *"0123456789")):
            break
        rows.append(line.split())
    return rows
