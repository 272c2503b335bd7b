"""Commands in forks of a process that has imported what they need: each takes the seconds of its imports less.

The process reads an order a line and answers with the command's process: `Prepared` is the other side. What tests the
start of a command, or what it prints while it imports, needs a process of its own: the fixture `run_cli`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
UNSET = ("EXPERIMENTS_DATA_DIR", "MLFLOW_TRACKING_URI", "PYTHONWARNINGS", "COLUMNS")


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would have a command find data or a store, or print otherwise, and with more variables."""
    return {key: value for key, value in os.environ.items() if key not in UNSET} | more


class Started:
    """A command under way in a fork, with what tests use of `subprocess.Popen`.

    Attributes:
        pid: Of the command, which leads a process group of its own.
        returncode: None until `poll` or `wait` has found that it ended.
    """

    def __init__(self, pid: int, status: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and its status is being written
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Prepared:
    """Runs ``python -m MODULE``, or a file of Python code, in a fork of a prepared process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._orders = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.prepared"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self, name: str, *arguments: str, cwd: Path, env: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a module by its name, or a file by its path, with exactly this environment."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "stdout"), Path(folder, "stderr")
            status = self.start(name, *arguments, cwd=cwd, env=env, out=out, err=err).wait()
            return subprocess.CompletedProcess([name, *arguments], status, out.read_text(), err.read_text())

    def start(
        self, name: str, *arguments: str, cwd: Path, env: Mapping[str, str], out: Path, err: Path | None = None
    ) -> Started:
        """Do so without waiting for its end; its output is added to files, of which `out` may serve for both."""
        assert self._process.stdin
        assert self._process.stdout
        self._orders += 1
        status = Path(self._folder.name, str(self._orders))
        files = [str(out), str(err or out)]
        order = {"name": name, "arguments": arguments, "cwd": str(cwd), "env": dict(env), "files": files}
        print(json.dumps({**order, "status": str(status)}), file=self._process.stdin, flush=True)
        return Started(int(self._process.stdout.readline()), status)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()


def serve(orders: IO[str]) -> None:
    """Import what the commands import, and carry out orders until there are no more."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from forks import forked, import_everything

    import_everything()
    sys.path.remove(str(ROOT / "scripts"))
    for line in orders:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        forked(watch_over, json.loads(line))


def watch_over(order: dict[str, Any]) -> None:
    """Start a command in a fork of this one, say which process it is, and keep its exit status."""
    from forks import forked

    process = forked(carry_out, order)
    print(process, flush=True)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    file = Path(order["status"])
    file.with_suffix(".new").write_text(str(status))
    file.with_suffix(".new").rename(file)


def carry_out(order: dict[str, Any]) -> None:
    """Become a command whose output goes to files."""
    from forks import become

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(order["files"], 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    become(order["name"], order["arguments"], order["cwd"], order["env"])


if __name__ == "__main__":
    serve(sys.stdin)
