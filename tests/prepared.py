"""Commands in forks of a process that has imported what they need: each takes the seconds of its imports less.

The process reads an order a line and answers with the exit status: `Prepared` is the other side. What tests the start
of a command, or what it prints while it imports, needs a process of its own: the fixture `run_cli`.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parents[1]


class Prepared:
    """Runs ``python -m MODULE``, or a file of Python code, in a fork of a prepared process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.prepared"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self, name: str, *arguments: str, cwd: Path, env: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a module by its name, or a file by its path, with exactly this environment."""
        assert self.process.stdin
        assert self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder, stream)) for stream in ("stdout", "stderr")]
            order = {"name": name, "arguments": arguments, "cwd": str(cwd), "env": dict(env), "files": files}
            print(json.dumps(order), file=self.process.stdin, flush=True)
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess([name, *arguments], status, *(Path(file).read_text() for file in files))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def serve(orders: IO[str]) -> None:
    """Import what the commands import, and carry out orders until there are no more."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from fuzzing.runner import import_everything

    import_everything()
    sys.path.remove(str(ROOT / "scripts"))
    for line in orders:
        if (pid := os.fork()) == 0:
            become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become(name: str, arguments: list[str], cwd: str, env: dict[str, str], files: list[str]) -> NoReturn:
    """Do in this process what Python would do in a new one."""
    status: object = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        sys.path[0] = cwd
        sys.argv = [name, *arguments]
        if name.endswith(".py"):
            runpy.run_path(name, run_name="__main__")
        else:
            sys.modules.pop(name, None)  # or runpy would warn
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    serve(sys.stdin)
