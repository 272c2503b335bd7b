"""Which journals wait, and which there are of a fingerprint; who may train a run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.config import Refused
from experiments.tracking import index, journal
from experiments.tracking.index import Claim
from tests.sweeps.processes import wait_until


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_journals_wait_until_they_were_delivered(tmp_path: Path) -> None:
    inside, outside = tmp_path / "mlruns" / "outputs" / "a", tmp_path / "elsewhere"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    assert index.waiting() == []
    index.add_waiting("1", inside)
    index.add_waiting("2", outside)
    assert index.waiting() == [inside, outside]
    assert index.is_waiting("1")
    index.remove_waiting("1")
    index.remove_waiting("1")
    assert not index.is_waiting("1")
    assert index.waiting() == [outside]
    outside.rmdir()
    assert index.waiting() == [], "what is gone"
    index.remove_waiting("2")
    assert not (tmp_path / "mlruns" / index.WAITING).exists()


def test_a_journal_is_found_whose_entry_was_lost(tmp_path: Path) -> None:
    """As by a power failure, or on a full disk."""
    with journal.Journal.create(tmp_path / "mlruns" / "outputs" / "a") as own:
        own.append("opened", uuid="1", started=0, tags={})
    index.add_waiting("1", own.folder)
    entry = tmp_path / "mlruns" / index.WAITING / "1"
    for content in (b"", b"\0" * 50, b"\xff\xff"):
        entry.write_bytes(content)
        assert index.waiting() == [own.folder]
        assert entry.read_text() == "outputs/a/record"
    entry.unlink()
    os.mkfifo(entry)
    assert index.waiting() == [own.folder]
    (entry.parent / "2").touch()
    assert index.waiting() == [own.folder]
    assert [file.name for file in entry.parent.iterdir()] == ["1"]


def test_a_damaged_claim_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    claim = Claim("f")
    (tmp_path / "a").mkdir()
    claim.add(tmp_path / "a")
    with (tmp_path / "mlruns" / index.CLAIMS / "f").open("ab") as file:
        file.write(b'5\n\xff\xfe\n[1, 2]\n["x"]\n{"a": 1}\n' + b"[" * 100_000 + b"\n")
    assert claim.journals() == [tmp_path / "a"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_claim_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "mlruns" / index.CLAIMS).mkdir(parents=True)
    make(tmp_path / "mlruns" / index.CLAIMS / "f")
    with pytest.raises(Refused, match="claims/f: is a folder, a pipe"):
        Claim("f").take()
    assert Claim("f").is_free()
    assert Claim("f").journals() == []


def test_what_lies_in_mlruns_is_found_after_it_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mlruns" / "outputs" / "a"
    folder.mkdir(parents=True)
    index.add_waiting("1", folder)
    Claim("f").add(folder)
    (tmp_path / "new").mkdir()
    (tmp_path / "mlruns").rename(tmp_path / "new" / "mlruns")
    monkeypatch.chdir(tmp_path / "new")
    moved = tmp_path / "new" / "mlruns" / "outputs" / "a"
    assert index.waiting() == [moved]
    assert Claim("f").journals() == [moved]


def test_journals_of_a_fingerprint_are_listed_the_latest_first(tmp_path: Path) -> None:
    claim = Claim("f")
    for name in "abac":
        (tmp_path / name).mkdir(exist_ok=True)
        claim.add(tmp_path / name)
    (tmp_path / "b").rmdir()
    assert claim.journals() == [tmp_path / "c", tmp_path / "a"]
    assert claim.journal_of(os.getpid()) == tmp_path / "c"
    assert claim.journal_of(1) is None
    assert Claim("g").journals() == []
    (tmp_path / "mlruns" / index.CLAIMS / "f").write_text("half a li")
    assert claim.journals() == []


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = """
import time
from pathlib import Path
from experiments.tracking.index import Claim
claim = Claim("f")
assert claim.take()
claim.add(Path("output/record"))
print("taken", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "taken\n"
        claim = Claim("f")
        assert not claim.is_free()
        assert not claim.take(patience=0.1)
        assert claim.holder() == f"process {other.pid} ({tmp_path / 'output'})"
        other.kill()
    wait_until(claim.is_free, 5)
    assert claim.take()
    assert claim.take(), "it is held already"
    claim.release()
    assert claim.is_free()
