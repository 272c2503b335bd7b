"""Where a run comes from: command, code, versions, machine, user. No MLflow needed."""

import contextlib
import getpass
import importlib.metadata
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Container, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments import __version__
from experiments.config.schema import Tracking
from experiments.tracking.store import FOLDER, redact

VERSIONED = ("tensorflow", "keras", "mlflow", "numpy", "hydra-core")
# Files whose uncommitted changes are kept with a run: those that may change what it does.
CODE = ("*.py", "*.yaml", "*.yml", "*.toml")
DIFF_LIMIT = 1_000_000  # characters
# A patch that `git apply` takes, whatever the settings say about colours, prefixes and programs that show differences.
PLAIN_DIFF = ["--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3"]
GIT_SECONDS = 10.0


def origin(tracking: Tracking, overrides: Sequence[str], command: str) -> dict[str, str]:
    """Tags that say where a run comes from: command, code, versions, machine, user."""
    overrides = [redact(item) for item in overrides]
    line = " ".join([command, *(f"'{item}'" for item in overrides)])
    return {
        **{key: redact(str(value)) for key, value in tracking.tags.items()},
        **{f"version.{name}": importlib.metadata.version(name) for name in VERSIONED},
        **_git_tags(),
        **hardware(),
        "version.python": platform.python_version(),
        "version.experiments": __version__,
        "overrides": " ".join(overrides),
        "host": socket.gethostname(),
        "mlflow.user": user(),
        "mlflow.source.name": "experiments.run",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": f"`{line}`",
    }


def user() -> str:
    """Name of the user; the number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class Working(NamedTuple):
    """The state of a Git working tree: its commit, and what differs from it in files of code, as a patch."""

    commit: str
    changed: bool
    patch: str


@cache  # all runs of a sweep share the state at its start
def working_tree() -> Working | None:
    """Look at the repository of the current folder; None outside of one."""
    git = partial(_git, time.monotonic() + GIT_SECONDS)
    try:
        commit = git("rev-parse", "HEAD").strip()
        status = git("status", "--porcelain", "--untracked-files=normal").splitlines()
        if all(f"{FOLDER}/" in line for line in status):  # our own records
            return Working(commit, False, "")
        return Working(commit, True, _patch(git))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(end: float, *arguments: str, allowed: Container[int] = (0,)) -> str:
    """Run Git until a time at most, without what the user's or the repository's settings would run."""
    command = ["git", "-c", "core.fsmonitor=", *arguments]
    options: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    options |= {"env": {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            output, _ = process.communicate(timeout=max(end - time.monotonic(), 0))
        except BaseException:
            with contextlib.suppress(OSError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)  # with its children, which may be what hangs
            raise
    if process.returncode not in allowed:
        raise subprocess.CalledProcessError(process.returncode, command)
    return str(output)


def _patch(git: Callable[..., str]) -> str:
    """What differs from the commit in files of code, new ones of the current folder included; without passwords."""
    top = Path(git("rev-parse", "--show-toplevel").rstrip("\n"))
    listed = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", "*.py").split("\0")
    patch = git("-C", str(top), "diff", *PLAIN_DIFF, "HEAD", "--", *CODE)
    left_out = 0
    for name in filter(None, listed):
        if len(patch) + (top / name).lstat().st_size > DIFF_LIMIT:
            left_out += 1
            continue
        patch += git("-C", str(top), "diff", *PLAIN_DIFF, "--no-index", "--", os.devnull, name, allowed=range(256))
    hidden, notes = redact(patch[:DIFF_LIMIT]), []
    if hidden != patch[:DIFF_LIMIT]:
        notes.append("This patch has *** in place of passwords in addresses: those lines cannot be applied.\n")
    if len(patch) > DIFF_LIMIT:
        notes.append(f"This patch is cut after {DIFF_LIMIT:,} of {len(patch):,} characters: it cannot be applied.\n")
    if left_out:
        notes.append(f"{left_out} new files are left out, as the patch would have over {DIFF_LIMIT:,} characters.\n")
    return "".join([*notes, hidden])


def _git_tags() -> dict[str, str]:
    if (tree := working_tree()) is None:
        return {}
    return {
        "git.commit": tree.commit,
        "git.dirty": str(tree.changed).lower(),
        "mlflow.source.git.commit": tree.commit,
    }


def hardware() -> dict[str, str]:
    """Tags of what computes; the same model of processor gives the same last bits."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"hardware.processor": next(names, platform.processor() or platform.machine())}


def other_machine(processor: str, threads: str, here: int | None = None) -> str:
    """Say on what kind of machine a run was made, if it is not that of this process.

    Args:
        processor: Its recorded model; empty: unknown.
        threads: Its recorded number of threads; empty: unknown.
        here: Number of threads that it would have here; None: unknown.
    """
    now = hardware()["hardware.processor"]
    differences = [f"on another processor ({processor}; here {now})"] if processor not in ("", now) else []
    if here is not None and threads not in ("", str(here)):
        differences.append(f"with {threads} threads (here {here})")
    return " ".join(differences)


@cache
def environment() -> str:
    """Installed packages as ``name==version`` lines; no addresses, which may hold credentials.

    Without what a package has within itself, and adds to the path when it is imported, as Ray does.
    """
    found = {}
    own = [folder for folder in sys.path if not {"site-packages", "dist-packages"} & {*Path(folder).parts[:-1]}]
    for item in importlib.metadata.distributions(path=own):
        # Not its `name` and `version`: each parses the whole file, description and all.
        text = item.read_text("METADATA") or item.read_text("PKG-INFO") or ""
        fields = dict(re.findall(r"^(Name|Version): (.+)$", text.partition("\n\n")[0], re.MULTILINE))
        if "Name" in fields:
            found[fields["Name"]] = fields["Version"]
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"# Python {platform.python_version()} on {platform.platform()}", *lines]) + "\n"
