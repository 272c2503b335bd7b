"""Commands in forks of a process that has imported what they need: each takes the seconds of its imports less.

The process reads an order a line and answers with the exit status: `Prepared` is the other side. What tests the start
of a command, or what it prints while it imports, needs a process of its own: the fixture `run_cli`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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
    from forks import forked, import_everything

    import_everything()
    sys.path.remove(str(ROOT / "scripts"))
    for line in orders:
        process = forked(carry_out, json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def carry_out(order: dict[str, Any]) -> None:
    """Become a command whose output goes to files."""
    from forks import become

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(order["files"], 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    become(order["name"], order["arguments"], order["cwd"], order["env"])


if __name__ == "__main__":
    serve(sys.stdin)
