"""Journals applied to MLflow: once, twice, in part, by several at once; with a real SQLite store."""

import ast
import itertools
import multiprocessing
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, RESOURCE_DOES_NOT_EXIST

from experiments.tracking import events, failures, index, journal, record, writer
from experiments.tracking.client import open_store
from experiments.tracking.delivered import Delivered, delivered
from experiments.tracking.events import APPLY
from experiments.tracking.failures import Unavailable
from experiments.tracking.journal import Journal
from experiments.tracking.writer import Writer
from tests.tracking.journals import REPORT, opened, stored, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
OWN, READY = "mlruns/mlflow.db", 2


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The file of a store that is there already: to make one takes a second."""
    file = tmp_path / "mlruns" / "mlflow.db"
    open_store(f"sqlite:///{file}")
    return file


@pytest.fixture
def ours(store: Path) -> Iterator[Writer]:
    made = Writer(f"sqlite:///{store}")
    yield made
    made.close()


def test_a_run_is_in_the_store_once_however_often_it_is_sent(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a")
    state = ours.deliver(folder)
    assert state.complete
    assert state.rejected == ()
    assert index.waiting() == []
    once = stored(store)
    assert [row[1] for row in once["runs"]] == ["FINISHED"]
    assert once["models"] == [("a run", "model", READY)]
    assert len([row for row in once["metrics"] if row[1] == "loss"]) == 3
    assert {"config.yaml", "report.json", "confusion_matrix.png", "model.keras", "MLmodel"} <= set(once["files"])
    assert ours.deliver(folder) == state
    assert ours.deliver(folder, again=True) == state
    assert Writer(ours.store.uri).deliver(folder, again=True) == state
    assert stored(store) == once


def test_nothing_is_on_the_disk_twice(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a")
    ours.deliver(folder)
    for name, places in {"model.keras": 2, "config.yaml": 2, "report.json": 1, "learning_curves.png": 1}.items():
        files = [*folder.rglob(name), *(store.parent / "artifacts").rglob(name)]
        assert len(files) == places
        assert len({file.stat().st_ino for file in files}) == 1
    assert sorted(file.name for file in folder.iterdir()) == [
        "delivered.json", "example.npy", "files", "journal.jsonl", "model.keras", "report.npz"
    ]  # fmt: skip


def test_a_foreign_journal_reaches_nothing_outside_of_its_folder(tmp_path: Path, store: Path, ours: Writer) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("trace", "delivered", "read", "waiting"):
        (victim / name).write_text("mine")
    with Journal.create(tmp_path / "a") as own:
        own.append("opened", **opened())
        (own.folder / "files" / "b").mkdir(parents=True)
        (own.folder / "files" / "a").symlink_to("b")
        (own.folder / "files" / "b" / "c").write_text("theirs")
        (own.folder / "files" / "traceback.txt").symlink_to(victim / "trace")
        (own.folder / "files" / "figures").symlink_to(victim)
        (own.folder / "delivered.json.new").symlink_to(victim / "delivered")
        own.append("file", path="a/c")
        own.append("file", path="b/../b/c")
        own.append("file", path=f"b/{'../' * 30}{victim}/read")
        own.append("file", path="figures/read")
        own.write("report.npz", record.packed_report("classification", {"loss": [1.0]}, REPORT))
        own.append("report", file="report.npz")
        own.append("closed", status="FAILED", failure="x", trace="x")
    state = ours.deliver(own.folder)
    assert state.complete
    assert [why.partition(":")[0] for why in state.rejected] == ["file"] * 4
    other = Journal.create(tmp_path / "b")
    shutil.rmtree(other.folder / "files", ignore_errors=True)
    (other.folder / "files").symlink_to(victim)
    other.append("opened", **opened(name="b"))
    other.append("file", path="read")
    other.close()
    assert len(ours.deliver(other.folder).rejected) == 1
    with Journal.create(tmp_path / "c") as last:
        last.append("opened", **opened(uuid="../../victim/waiting"))
        last.append("closed", status="FINISHED", failure="", trace="")
    assert not ours.deliver(last.folder).run_id
    assert {file.name: file.read_text() for file in victim.iterdir()} == dict.fromkeys(
        ("trace", "delivered", "read", "waiting"), "mine"
    )
    assert "read" not in stored(store)["files"]


def test_a_traceback_that_cannot_be_taken_does_not_leave_a_run_under_way(
    tmp_path: Path, store: Path, ours: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a", close=False)
    with Journal(folder) as own:
        own.append("closed", status="FAILED", failure="why", trace="trace")

    def refused(*arguments: object) -> None:
        raise ValueError("no")

    ours.deliver(write(tmp_path / "first", name="first"))
    monkeypatch.setattr(events, "put", refused)
    assert any(why.startswith("closed") for why in ours.deliver(folder).rejected)
    assert [row[:2] for row in stored(store)["runs"]] == [("a run", "FAILED"), ("first", "FINISHED")]


class Killed(BaseException):
    """Stands for the end of the process: no code of ours catches it."""


@pytest.mark.one_version
@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_writer_that_is_killed_at_any_call_leaves_nothing_twice(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Before the store has done what it was asked for, or after that, when its answer is lost."""
    calls = _calls(monkeypatch, lost)
    for number in itertools.count():
        folder = write(tmp_path / str(number), epochs=2, name=str(number))
        whole = _deliver_within(calls, number or MANY, store, folder)
        assert _deliver_within(calls, MANY, store, folder)
        assert not delivered(folder)[OWN].rejected
        if whole and number:
            break
    assert number > 15
    found = stored(store)
    for table in ("runs", "metrics", "latest", "params", "tags", "inputs", "models"):
        by_name = {str(each): [row[1:] for row in found[table] if row[0] == str(each)] for each in range(number)}
        for each, rows in by_name.items():
            assert rows == by_name["0"], (table, each)


def _deliver_within(calls: dict[str, int], left: int, store: Path, folder: Path) -> bool:
    """Deliver a journal with so many calls of MLflow; whether they were enough."""
    calls["left"] = left
    with closing(Writer(f"sqlite:///{store}")) as own:
        try:
            return own.deliver(folder).complete
        except Killed:
            return False


MANY = 10**9
CALLS = [
    "create_run",
    "log_batch",
    "log_inputs",
    "log_outputs",
    "create_logged_model",
    "finalize_logged_model",
    "set_terminated",
    "set_tag",
    "search_runs",
    "get_run",
    "search_logged_models",
    "get_metric_history",
]


def _calls(monkeypatch: pytest.MonkeyPatch, lost: str) -> dict[str, int]:
    """Let MLflow's client do so many calls as are left, and end at the next one."""
    from mlflow import MlflowClient

    left = {"left": MANY}

    def limited(name: str) -> Any:
        function = getattr(MlflowClient, name)

        def call(*arguments: Any, **options: Any) -> Any:
            left["left"] -= 1
            if left["left"] < 0 and lost == "before":
                raise Killed
            done = function(*arguments, **options)
            if left["left"] < 0:
                raise Killed
            return done

        return call

    for name in CALLS:
        monkeypatch.setattr(MlflowClient, name, limited(name))
    return left


@pytest.mark.parametrize("why", ["Connection aborted", "(psycopg2.errors.UniqueViolation) duplicate key value"])
def test_what_fails_for_a_reason_that_passes_is_tried_again(
    tmp_path: Path, store: Path, ours: Writer, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A server closes connections that rest, while pictures are drawn; two writers add the same row."""
    from mlflow import MlflowClient

    function, calls = MlflowClient.get_run, itertools.count()

    def lost(*arguments: Any) -> Any:
        if next(calls) % 3 != 2:
            raise ConnectionError(why)
        return function(*arguments)

    monkeypatch.setattr(MlflowClient, "get_run", lost)
    monkeypatch.setattr(failures, "QUICK_SECONDS", 0)
    assert ours.deliver(write(tmp_path / "a", epochs=1)).complete
    assert next(calls) > 6
    monkeypatch.setattr(failures, "TRIES", 2)
    with pytest.raises(Unavailable, match=re.escape(why)):
        ours.deliver(write(tmp_path / "b", epochs=1))


def test_a_journal_of_a_process_that_is_gone_is_closed(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a", close=False)
    assert not ours.deliver(folder, close=False).complete
    assert stored(store)["runs"][0][1] == "RUNNING"
    with Journal(folder):
        assert not ours.deliver(folder).complete, "it is under way"
    assert ours.deliver(folder).complete
    assert stored(store)["runs"][0][1] == "FAILED"
    assert ("a run", "failure", writer.DIED) in stored(store)["tags"]
    assert "traceback.txt" in stored(store)["files"]


def test_a_run_that_goes_on_is_delivered_as_one(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a", close=False)
    ours.deliver(folder)
    with Journal(folder) as own:
        own.append("resumed", started=9_000, earlier=2.5, process="1 2", number=1)
        assert ours.deliver(folder).run_id
        assert stored(store)["runs"][0][1] == "RUNNING"
        own.append("closed", status="FINISHED", failure="", trace="")
    assert ours.deliver(folder).complete
    tags = dict(row[1:] for row in stored(store)["tags"])
    assert (tags["resumed"], tags["resumed.at"], tags["resumed.earlier_seconds"]) == ("1", "9000", "2.5")
    assert "failure" not in tags
    assert stored(store)["runs"][0][1] == "FINISHED"


@pytest.mark.parametrize("replaced", ["removed", "another", "restored"])
def test_a_store_that_was_replaced_gets_all_of_a_run(tmp_path: Path, store: Path, ours: Writer, replaced: str) -> None:
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(store)) as now, closing(sqlite3.connect(backup)) as copy:
        now.backup(copy)
    folder = write(tmp_path / "a", close=False)
    with Journal(folder) as own:
        first = ours.deliver(folder)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{store}{suffix}").unlink(missing_ok=True)
        if replaced == "another":
            open_store(f"sqlite:///{tmp_path}/other/mlflow.db")
            (tmp_path / "other" / "mlflow.db").rename(store)
        elif replaced == "restored":
            backup.rename(store)
        own.append("closed", status="FINISHED", failure="", trace="")
    second = ours.deliver(folder)
    assert second.complete
    assert second.run_id != first.run_id
    found = stored(store)
    assert [row[1] for row in found["runs"]] == ["FINISHED"]
    assert len([row for row in found["metrics"] if row[1] == "loss"]) == 3
    assert len(found["models"]) == 1


def test_what_the_store_rejects_is_set_aside_and_the_rest_delivered(tmp_path: Path, store: Path, ours: Writer) -> None:
    with Journal.create(tmp_path / "a") as own:
        own.append("opened", **opened(parameters={"seed": "0"}))
        own.append("metrics", step=0, values={"loss": 1.0})
        own.append("metrics", step=0, values={"a name / that ; MLflow rejects": 1.0})
        own.append("file", path="gone.txt")
        own.append("file", path="../../../etc/passwd")
        own.append("file", path="/etc/passwd")
        (own.folder / "files").mkdir()
        (own.folder / "files" / "link").symlink_to("/etc/passwd")
        own.append("file", path="link")
        own.append("report", file="../../outside.npz")
        os.mkfifo(own.folder / "pipe.npz")
        own.append("report", file="pipe.npz")
        own.append("nonsense")
        own.append("tags", tags={"weights.digest": "w"})
        own.append("closed", status="FINISHED", failure="", trace="")
    state = ours.deliver(own.folder)
    assert state.complete
    assert [why.partition(":")[0] for why in state.rejected] == ["metrics", *4 * ["file"], *2 * ["report"], "nonsense"]
    found = stored(store)
    assert ("a run", "weights.digest", "w") in found["tags"]
    assert [row[1] for row in found["metrics"]] == ["loss"]


def test_a_deleted_run_stays_deleted(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a", close=False)
    with Journal(folder) as own:
        run_id = ours.deliver(folder).run_id
        ours.store.client.delete_run(run_id)
        own.append("metrics", step=9, values={"loss": 0.0})
        own.append("closed", status="FINISHED", failure="", trace="")
    state = ours.deliver(folder)
    assert state.complete
    assert len(state.rejected) == 2
    assert stored(store)["runs"][0][3] == "deleted"


def test_a_run_that_was_deleted_is_found_so_where_that_is_not_known(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a")
    run_id = ours.deliver(folder).run_id
    ours.store.client.delete_run(run_id)
    expected = Delivered(run_id, (folder / "journal.jsonl").stat().st_size, complete=True)
    expected = replace(expected, rejected=(f"run {run_id} was deleted there",))
    assert ours.deliver(folder, again=True) == expected
    assert index.waiting() == []
    (folder / journal.DELIVERED).unlink()
    assert ours.deliver(folder) == expected
    assert len(stored(store)["runs"]) == 1


def test_parameters_that_conflict_do_not_take_others_along(tmp_path: Path, store: Path, ours: Writer) -> None:
    folder = write(tmp_path / "a")
    run_id = ours.deliver(folder).run_id
    with Journal.create(tmp_path / "b") as own:
        uuid = journal.opening(folder)["uuid"]
        own.append("opened", **opened(uuid=uuid, parameters={"seed": "1", "new": "2"}))
        own.append("closed", status="FINISHED", failure="", trace="")
    state = ours.deliver(own.folder)
    assert state.run_id == run_id
    assert len(state.rejected) == 1
    assert "seed" in state.rejected[0]
    params = ours.store.client.get_run(run_id).data.params
    assert (params["seed"], params["new"]) == ("0", "2")


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (MlflowException("x", error_code=0x1F4), True),
        (MlflowException("API request to endpoint x failed with error code 404", ENDPOINT_NOT_FOUND), True),
        (MlflowException("x", RESOURCE_DOES_NOT_EXIST), False),
        (ConnectionError("no route"), True),
        (sqlite3.OperationalError("database is locked"), True),
        (OSError("disk full"), True),
        (FileNotFoundError("of the journal"), False),
        (ValueError("x"), False),
        (KeyError("x"), False),
    ],
)
def test_what_is_tried_again_later(error: Exception, temporary: bool) -> None:
    assert failures.is_temporary(error) is temporary


def test_a_damaged_store_keeps_the_journal_as_it_is(tmp_path: Path, store: Path) -> None:
    folder = write(tmp_path / "a")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store}{suffix}").unlink(missing_ok=True)
    store.write_bytes(b"nonsense" * 1000)
    with pytest.raises(Unavailable):
        Writer(f"sqlite:///{store}").deliver(folder)
    assert index.waiting() == [folder]
    assert store.read_bytes() == b"nonsense" * 1000
    store.unlink()
    assert Writer(f"sqlite:///{store}").deliver(folder).complete


def test_runs_of_a_sweep_are_beneath_it(tmp_path: Path, store: Path, ours: Writer) -> None:
    """Also where the parent is delivered last: its results come after its runs."""
    with Journal.create(tmp_path / "sweep") as own:
        parent = opened(name="sweep", tags={"sweep": "s"}, dataset=None, parameters={"seed": "0,1"})
        index.add_waiting(parent["uuid"], own.folder)
        own.append("opened", **parent)
        runs = [write(tmp_path / name, parent=parent["uuid"], name=name) for name in ("one", "other")]
        rows = [
            {"seed": str(seed), "objective": 0.5, "measured_as": "val_accuracy", "status": "FINISHED", "run_id": "",
             "name": folder.parent.name, "uuid": journal.opening(folder)["uuid"]}
            for seed, folder in enumerate(runs)
        ]  # fmt: skip
        own.append("results", rows=rows, experiments=["digits"])
        own.append("closed", status="FINISHED", failure="", trace="")
    assert not ours.deliver(own.folder).complete
    ids = [ours.deliver(folder).run_id for folder in runs]
    state = ours.deliver(own.folder)
    assert state.complete
    assert state.rejected == ()
    for run_id in ids:
        assert ours.store.client.get_run(run_id).data.tags["mlflow.parentRunId"] == state.run_id
    found = ours.store.client.get_run(state.run_id)
    assert found.data.tags["best_run"] == ids[0]
    assert found.data.metrics == {"runs": 2.0, "finished_runs": 2.0, "best_objective": 0.5}
    table = (store.parent / "artifacts" / state.run_id / "artifacts" / "results.csv").read_text()
    assert table.splitlines()[1].split(",")[-2] == ids[0]
    assert "uuid" not in table


def test_a_folder_that_was_deleted_is_no_trouble_of_the_store(tmp_path: Path, ours: Writer) -> None:
    state = ours.deliver(tmp_path / "gone")
    assert not state.complete
    assert state.trouble.startswith("FileNotFoundError") or "No such file" in state.trouble


def test_a_run_whose_experiment_was_deleted_waits(tmp_path: Path, ours: Writer) -> None:
    """Others are delivered."""
    ours.store.client.delete_experiment(ours.store.client.create_experiment("digits"))
    state = ours.deliver(folder := write(tmp_path / "a"))
    assert not state.complete
    assert "deleted" in state.trouble
    assert index.waiting() == [folder]
    assert ours.deliver(write(tmp_path / "b", experiment="other")).complete


def test_a_parent_that_a_user_named_is_taken_as_it_is(tmp_path: Path, ours: Writer) -> None:
    of = ours.store.client.create_experiment("other")
    parent = ours.store.client.create_run(of).info.run_id
    state = ours.deliver(write(tmp_path / "a", parent=parent))
    assert ours.store.client.get_run(state.run_id).data.tags["mlflow.parentRunId"] == parent


def _deliver(store: Path, folders: list[Path]) -> None:
    with closing(Writer(f"sqlite:///{store}")) as own:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            complete = [own.deliver(folder).complete for folder in folders]
            if all(complete):
                os._exit(0)
            time.sleep(0.01)
    os._exit(1)


def test_several_may_deliver_the_same_journals_at_once(tmp_path: Path, store: Path) -> None:
    folders = [write(tmp_path / str(number), epochs=1, name=str(number)) for number in range(3)]
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_deliver, args=(store, folders)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(120)
    assert [other.exitcode for other in others] == [0, 0]
    found = stored(store)
    assert [row[1] for row in found["runs"]] == ["FINISHED"] * 3
    assert len(found["models"]) == 3
    assert all(delivered(folder)[OWN].complete and not delivered(folder)[OWN].rejected for folder in folders)


def test_every_event_that_is_written_can_be_applied() -> None:
    calls = [
        node
        for file in Path(writer.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".append") and node.keywords
    ]
    written = {node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)}
    assert written == set(APPLY)
