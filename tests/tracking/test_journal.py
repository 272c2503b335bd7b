"""A run's journal: what was written is whole, whatever comes after."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import RunFailed
from experiments.tracking import journal
from experiments.tracking.delivered import Delivered, delivered, note_delivered
from experiments.tracking.journal import JOURNAL, Journal, read
from experiments.tracking.summary import close_abandoned, summary

OPENED = {"uuid": "a1", "started": 0, "store": "s", "experiment": "e", "parent": None, "tags": {"fingerprint": "f"}}
VALUES = st.dictionaries(st.text(), st.floats() | st.integers(), max_size=3)


def events(folder: Path) -> list[dict[str, Any]]:
    return [event for event, _ in read(folder)]


@given(st.lists(VALUES, max_size=5), st.binary(max_size=50))
def test_what_was_written_is_read_whatever_half_a_line_follows(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, float]], rest: bytes
) -> None:
    folder = tmp_path_factory.mktemp("output")
    first = Journal.create(folder)
    for step, values in enumerate(written):
        first.append("metrics", sync=False, step=step, values=values)
    first.close()
    with (first.folder / JOURNAL).open("ab") as file:
        file.write(rest.replace(b"\n", b""))
    again = Journal(first.folder)
    again.append("closed", status="FINISHED", failure="", trace="")
    again.close()
    found = events(first.folder)
    assert [event["event"] for event in found] == ["metrics"] * len(written) + ["closed"]
    for event, values in zip(found, written, strict=False):
        assert repr(event["values"]) == repr(values), "to the last bit, NaN and infinity included"
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)


@given(st.binary(max_size=300))
def test_a_damaged_journal_is_read_as_far_as_it_goes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("record")
    (folder / JOURNAL).write_bytes(content)
    assert summary(folder).folder == folder
    (folder / journal.DELIVERED).write_bytes(content)
    assert delivered(folder) == {}


@pytest.mark.parametrize(
    "line",
    [
        {"event": "metrics"},
        {"event": "metrics", "time": 1, "step": 0, "values": [1]},
        {"event": "metrics", "time": 1, "step": 0, "values": {"objective": "x"}},
        {"event": "metrics", "time": "1", "step": 0, "values": {}},
        {"event": "closed", "time": 1, "status": "FINISHED"},
        {"event": "resumed", "time": 1},
        {"event": "opened", "time": 1, "started": 1, "tags": {}},
        {"event": "opened", "time": 1, "started": 1, "tags": {}, "uuid": "../../x"},
        {"time": 1},
        [1],
    ],
)
def test_what_is_no_event_is_left_out(tmp_path: Path, line: Any) -> None:
    with Journal.create(tmp_path) as own:
        own.append("opened", **OPENED)
        with (own.folder / JOURNAL).open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n" + b"[" * 200_000 + b"\n")
        own.append("closed", status="FINISHED", failure="", trace="")
    assert [event["event"] for event in events(own.folder)] == ["opened", "closed"]
    assert summary(own.folder).status == "FINISHED"


@pytest.mark.parametrize("name", [JOURNAL, journal.DELIVERED])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert summary(tmp_path).uuid == ""
    assert delivered(tmp_path) == {}


def test_a_journal_belongs_to_one_process_and_one_run(tmp_path: Path) -> None:
    first = Journal.create(tmp_path)
    with Journal.create(tmp_path) as second:
        assert second.folder.name == "record-2"
    assert (first.folder.name, second.folder.name) == ("record", "record-2")
    assert journal.at_work(first.folder)
    with pytest.raises(BlockingIOError):
        Journal(first.folder)
    assert not close_abandoned(first.folder, "FAILED", "gone")
    first.append("opened", **OPENED)
    first.close()
    assert not journal.at_work(first.folder)
    assert close_abandoned(first.folder, "FAILED", "gone")
    assert (summary(first.folder).status, summary(first.folder).failure) == ("FAILED", "gone")
    assert close_abandoned(first.folder, "KILLED", "again")
    assert summary(first.folder).failure == "gone"


def test_a_summary_is_that_of_the_latest_attempt(tmp_path: Path) -> None:
    own = Journal.create(tmp_path)
    own.append("opened", **OPENED)
    own.append("metrics", step=0, values={"loss": 1.0})
    own.append("closed", status="FAILED", failure="it fell", trace="")
    assert summary(own.folder).tags == {"fingerprint": "f", "failure": "it fell"}
    own.append("resumed", started=5_000, earlier=2.0, process="1 2", number=1)
    found = summary(own.folder)
    assert (found.status, found.failure, found.resumed, found.objective) == ("RUNNING", "", 1, None)
    own.append("metrics", step=0, values={"objective": 0.5})
    own.append("closed", status="FINISHED", failure="", trace="")
    found = summary(own.folder)
    assert (found.status, found.objective) == ("FINISHED", 0.5)
    assert set(found.values) == {("loss", 0), ("objective", 0)}
    own.close()


def test_what_stores_have_is_kept_for_each(tmp_path: Path) -> None:
    with Journal.create(tmp_path) as own:
        own.append("opened", **OPENED)
        (first,) = (end for _, end in read(own.folder))
        note_delivered(own.folder, "one", Delivered("a"))
        note_delivered(own.folder, "other", Delivered("b", first, complete=True, rejected=("why",)))
        note_delivered(own.folder, "one", Delivered("a", first, trouble="why"))
    found = delivered(own.folder)
    assert found["one"] == Delivered("a", first, found["one"].ending, trouble="why")
    assert found["other"] == Delivered("b", first, found["one"].ending, complete=True, rejected=("why",))


def test_what_a_store_has_is_not_taken_for_that_of_another_copy(tmp_path: Path) -> None:
    with Journal.create(tmp_path) as own:
        own.append("opened", **OPENED)
        own.append("closed", status="FAILED", failure="", trace="")
        (*_, (_, size)) = read(own.folder)
        note_delivered(own.folder, "s", Delivered("a", size, complete=True))
        assert summary(own.folder).delivered.complete
        own.append("resumed", started=5_000, earlier=2.0, process="1 2", number=1)
        assert (summary(own.folder).delivered.complete, summary(own.folder).delivered.bytes) == (False, size)
    content = (own.folder / JOURNAL).read_bytes()
    (own.folder / JOURNAL).write_bytes(content.replace(b"FAILED", b"KILLED"))
    assert summary(own.folder).delivered == Delivered("a")


def test_a_run_that_is_closed_later_ended_with_its_last_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sweep ended when the last run of it did."""
    clock = {"now": 10.0}
    monkeypatch.setattr("experiments.tracking.journal.time.time", lambda: clock["now"])
    with Journal.create(tmp_path) as sweep:
        sweep.append("opened", **{**OPENED, "started": 10_000, "tags": {"sweep": "s"}})
    clock["now"] = 12.0
    with Journal.create(tmp_path / "0") as run:
        run.append("opened", **{**OPENED, "started": 11_000, "uuid": "b2", "parent": "a1"})
        clock["now"] = 15.0
        run.append("metrics", step=0, values={"loss": 1.0})
    clock["now"] = 5_000.0
    for folder, seconds in ((run.folder, 4.0), (sweep.folder, 5.0)):
        assert close_abandoned(folder, "KILLED", "")
        assert summary(folder).seconds == seconds


def test_a_disk_that_is_full_fails_the_run_and_leaves_what_was_written_whole(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from experiments.config import RunFailed
from experiments.tracking.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
own = Journal.create(Path(sys.argv[1]))
own.append("metrics", step=0, values={"loss": 1.0})
resource.setrlimit(resource.RLIMIT_FSIZE, (own._size + 20, own._size + 20))
try:
    own.append("metrics", step=1, values={"loss": 0.5})
except RunFailed as failed:
    print(failed)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the run could not be recorded: ")
    content = (tmp_path / "record" / JOURNAL).read_bytes()
    assert content.endswith(b"\n")
    assert len(events(tmp_path / "record")) == content.count(b"\n") == 1


def test_a_folder_that_was_removed_fails_the_run(tmp_path: Path) -> None:
    with Journal.create(tmp_path) as own:
        own.append("opened", **OPENED)
        (own.folder / JOURNAL).unlink()
        with pytest.raises(RunFailed, match="was removed"):
            own.append("metrics", sync=False, step=0, values={"loss": 1.0})


def test_times_never_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5.0, 3.0, 6.0])
    monkeypatch.setattr("experiments.tracking.journal.time.time", lambda: next(clock))
    with Journal.create(tmp_path) as own:
        for _ in range(3):
            own.append("tags", tags={})
    assert [event["time"] for event in events(own.folder)] == [5000, 5000, 6000]


def test_not_a_number_is_written_and_read(tmp_path: Path) -> None:
    with Journal.create(tmp_path) as own:
        own.append("metrics", step=0, values={"a": math.nan, "b": math.inf, "c": -math.inf})
    (event,) = events(own.folder)
    assert repr(event["values"]) == "{'a': nan, 'b': inf, 'c': -inf}"
