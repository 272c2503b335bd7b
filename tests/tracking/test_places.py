"""Artifacts are found and stored beside their store, wherever that was moved."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.tracking.places import link, local_folder

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
SHORT = ("data=digits", "data.limit=300", "epochs=2", "model.layer_sizes=[8]", "data.validation_size=0.2")


def test_a_project_that_was_moved_goes_on(tmp_path: Path, fork_cli: RunCli) -> None:
    old, new = tmp_path / "old", tmp_path / "a new place"
    old.mkdir()
    assert fork_cli("-m", *SHORT, "seed=0,1", cwd=old).returncode == 0
    old.rename(new)
    for module, words in (
        ("predict", ("run=best", "test=0:2")),
        ("compare", ("sweep=latest", "report=report.html")),
        ("reproduce", ("run=latest",)),
        ("promote", ("run=best",)),
        ("predict", ("run=digits@champion", "test=0:2")),
    ):
        done = fork_cli(*words, module=module, cwd=new)
        assert (done.returncode, done.stderr) == (0, ""), module
    kept = fork_cli("-m", *SHORT, "seed=0,1,2", "resume=true", cwd=new)
    assert kept.returncode == 0, kept.stderr
    assert kept.stdout.startswith("resume: 2 kept, 1 never ran: rerun\n")
    assert not old.exists(), "nothing is recorded in the old place"
    assert len(list((new / "mlruns" / "artifacts").rglob("model.keras"))) == 3
    assert fork_cli("run=latest", "test=0:2", module="predict", cwd=new).returncode == 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("file:///old/mlruns/artifacts/run1/artifacts", "artifacts/run1/artifacts"),
        ("file:///old/my%20runs/artifacts/models/m-1/artifacts", "artifacts/models/m-1/artifacts"),
        ("/old/artifacts/run1/artifacts", "artifacts/run1/artifacts"),
    ],
)
def test_what_is_gone_is_looked_for_beside_the_store(address: str, expected: str, tmp_path: Path) -> None:
    assert local_folder(address, f"sqlite:///{tmp_path}/mlflow.db") == tmp_path / expected


def test_what_is_there_is_taken_where_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "run1" / "artifacts"
    elsewhere.mkdir(parents=True)
    assert local_folder(elsewhere.as_uri(), f"sqlite:///{tmp_path}/mlflow.db") == elsewhere
    assert local_folder(elsewhere.as_uri(), "http://127.0.0.1:5000") == elsewhere
    assert local_folder("mlflow-artifacts:/1/run1/artifacts", f"sqlite:///{tmp_path}/mlflow.db") is None
    assert local_folder("s3://bucket/run1/artifacts", "http://127.0.0.1:5000") is None


def test_files_are_linked_or_copied_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    for number in range(2):
        link(file, tmp_path / "place" / "file")
        assert (tmp_path / "place" / "file").samefile(file), number
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another device")))
    (tmp_path / "other").write_text("other")
    link(tmp_path / "other", tmp_path / "place" / "file")
    assert (tmp_path / "place" / "file").read_text() == "other"
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["file"]
