"""What a run says about its origin: user, commit, uncommitted changes."""

import getpass
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from experiments.tracking import provenance
from experiments.tracking.provenance import user, working_tree

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    working_tree.cache_clear()
    yield
    working_tree.cache_clear()


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in a new repository with one commit, of `old.py`; the current folder."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        author = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
        return subprocess.run(["git", *author, *arguments], capture_output=True, text=True, check=True).stdout

    call("init", "-q")
    (tmp_path / "old.py").write_text("x = 1\n")
    call("add", ".")
    call("commit", "-qm", "first")
    return call


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("no username")])
def test_a_user_without_a_name_has_a_number(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert user() == str(os.getuid())


SETTINGS = {
    "diff.external": "/bin/false",
    "diff.shout.textconv": "tr a-z A-Z <",
    "color.diff": "always",
    "color.ui": "always",
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.context": "0",
    "status.showUntrackedFiles": "no",
}


def test_the_patch_applies_whatever_the_settings_are(git: Git, tmp_path: Path) -> None:
    hook = tmp_path / ".git" / "watch"
    hook.write_text("#!/bin/sh\ntouch was-run\n")
    hook.chmod(0o755)
    for key, value in {**SETTINGS, "core.fsmonitor": str(hook)}.items():
        git("config", key, value)
    (tmp_path / ".git" / "info" / "attributes").write_text("*.py diff=shout\n")
    (tmp_path / "old.py").write_text("x = 2\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "é new.py").write_text("y = 1\n")
    (tmp_path / "sub" / "latin.py").write_bytes(b"# \xe9\n")
    tree = working_tree()
    assert not (tmp_path / "was-run").exists()
    assert tree
    assert tree.changed
    (tmp_path / "change.patch").write_text(tree.patch)
    (tmp_path / "old.py").write_text("x = 1\n")
    (tmp_path / "sub" / "é new.py").unlink()
    (tmp_path / "sub" / "latin.py").unlink()
    git("-c", "core.fsmonitor=", "apply", "change.patch")
    assert (tmp_path / "old.py").read_text() == "x = 2\n"
    assert (tmp_path / "sub" / "é new.py").read_text() == "y = 1\n"


def test_new_files_elsewhere_in_the_repository_are_not_taken(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local_settings.py").write_text("PASSWORD = 1\n")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "layers.py").write_text("z = 1\n")
    monkeypatch.chdir(tmp_path / "project")
    tree = working_tree()
    assert tree
    assert "b/project/layers.py" in tree.patch
    assert "PASSWORD" not in tree.patch


def test_a_patch_that_is_not_whole_says_so(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.py").write_text("x = 'http://me:secret@host'\n" * 1000)
    (tmp_path / "large.py").write_text("x = 1\n" * 1000)
    monkeypatch.setattr(provenance, "DIFF_LIMIT", 1000)
    tree = working_tree()
    assert tree
    first, second, third = tree.patch.splitlines()[:3]
    assert first.startswith("This patch has *** in place of passwords")
    assert second.startswith("This patch is cut after 1,000 of ")
    assert third == "1 new files are left out, as the patch would have over 1,000 characters."
    assert "secret" not in tree.patch


def test_a_git_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/child\nwait\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 1.0)
    start = time.monotonic()
    assert working_tree() is None
    assert time.monotonic() - start < 5
    child = int((tmp_path / "child").read_text())
    try:
        for _ in range(50):  # until the system has taken it away
            os.kill(child, 0)
            time.sleep(0.1)
            if "\tZ" in Path(f"/proc/{child}/status").read_text():
                break
        else:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child of git lives on")
    except (ProcessLookupError, FileNotFoundError):
        pass


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can take the number of a user")
def test_a_user_without_name_and_home_trains_in_an_odd_folder(git: Git, tmp_path: Path, place: Path) -> None:
    """As in many containers. The user may read everything, as Python may lie in root's own folder."""
    shutil.copytree(tmp_path, place / "a?b#%41")
    folder = place / "a?b#%41"
    (folder / "new.py").write_text("x = 1\n")
    place.chmod(0o777)
    folder.chmod(0o777)
    capabilities = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *capabilities, sys.executable, "-m"]
    small = ["data=digits", "data.limit=100", "epochs=1", "model.layer_sizes=[8]", "tracking.code=false"]
    tag = "+tracking.tags.x='http://me:it\\'s/pass@word@host/x?token=sekret'"
    unset = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(
        [*command, "experiments.run", *small, tag],
        cwd=folder,
        env={**kept, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in place.iterdir()] == [folder.name]
    assert {path.name for path in folder.iterdir()} == {".git", "old.py", "new.py", "mlruns"}
    with closing(sqlite3.connect((folder / "mlruns" / "mlflow.db").as_uri(), uri=True)) as connection:
        tags = dict(connection.execute("SELECT key, value FROM tags"))
    assert tags["mlflow.user"] == "12345"
    assert tags["git.dirty"] == "true"
    assert tags["x"] == "http://***@host/x?***"
    assert not list(folder.rglob("uncommitted.patch"))
    for text in [*tags.values(), *(file.read_text() for file in folder.rglob("config/*"))]:
        assert not re.search("it.*s/pass|word@|sekret", text)
