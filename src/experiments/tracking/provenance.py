"""Where a run comes from: command, code, versions, machine, user. No MLflow needed."""

import getpass
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from experiments import __version__
from experiments.config.schema import Tracking
from experiments.tracking.store import FOLDER, redact

VERSIONED = ("tensorflow", "keras", "mlflow", "numpy", "hydra-core")
# Files whose uncommitted changes are kept with a run: those that may change what it does.
CODE = ("*.py", "*.yaml", "*.yml", "*.toml")
DIFF_LIMIT = 1_000_000  # characters


def origin(tracking: Tracking, overrides: Sequence[str], command: str) -> dict[str, str]:
    """Tags that say where a run comes from: command, code, versions, machine, user."""
    line = " ".join([command, *(f"'{item}'" for item in overrides)])
    return {
        **{key: str(value) for key, value in tracking.tags.items()},
        **{f"version.{name}": importlib.metadata.version(name) for name in VERSIONED},
        **_git_tags(),
        **hardware(),
        "version.python": platform.python_version(),
        "version.experiments": __version__,
        "overrides": " ".join(overrides),
        "host": socket.gethostname(),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "experiments.run",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": f"`{line}`",
    }


class Working(NamedTuple):
    """The state of a Git working tree: its commit, and what differs from it in files of code, as a patch."""

    commit: str
    changed: bool
    patch: str


@cache  # a sweep's runs are those of its start, whatever is edited meanwhile
def working_tree() -> Working | None:
    """Look at the repository of the current folder; None outside of one."""

    def git(*arguments: str, allowed: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
        if done.returncode not in allowed:
            raise subprocess.CalledProcessError(done.returncode, done.args)
        return done.stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        if all(f"{FOLDER}/" in line for line in git("status", "--porcelain").splitlines()):  # our own records
            return Working(commit, False, "")
        top = git("rev-parse", "--show-toplevel").strip()
        new = git("-C", top, "ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines()
        patches = [git("-C", top, "diff", "HEAD", "--", *CODE)]
        patches += [git("-C", top, "diff", "--no-index", "--", os.devnull, name, allowed=(0, 1)) for name in new]
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return None
    return Working(commit, True, redact("".join(patches))[:DIFF_LIMIT])


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


def environment() -> str:
    """Installed packages as ``name==version`` lines; no addresses, which may hold credentials."""
    found = {}
    for item in importlib.metadata.distributions():
        # Not its `name` and `version`: each parses the whole file, description and all.
        text = item.read_text("METADATA") or item.read_text("PKG-INFO") or ""
        fields = dict(re.findall(r"^(Name|Version): (.+)$", text.partition("\n\n")[0], re.MULTILINE))
        if "Name" in fields:
            found[fields["Name"]] = fields["Version"]
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"# Python {platform.python_version()} on {platform.platform()}", *lines]) + "\n"
